"""What few labelled scans suffice for, with unlabelled scans or synthetic pairs beside them."""
