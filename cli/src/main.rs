//! slotvmm
fn main() {}
