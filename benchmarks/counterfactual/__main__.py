"""``python -m benchmarks.counterfactual``."""

from benchmarks.counterfactual.lesion_search import main

if __name__ == "__main__":
    main()
