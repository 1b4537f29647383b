"""``python -m benchmarks.few_label``."""

from benchmarks.few_label.label_counts import main

if __name__ == "__main__":
    main()
