//! What every device has to stand.
