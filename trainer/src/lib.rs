//! Trains digit classifiers and exports them for `thumbnet`.
