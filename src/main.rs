//! The `kvprof` command line.

fn main() {}
