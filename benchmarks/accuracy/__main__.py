"""``python -m benchmarks.accuracy``."""

from benchmarks.accuracy.per_second import main

if __name__ == "__main__":
    main()
