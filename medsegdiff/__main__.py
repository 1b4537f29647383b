"""``python -m medsegdiff``, for programs that start modules, such as ``torch.distributed.run``."""

from medsegdiff.cli.main import main

if __name__ == "__main__":
    main()
