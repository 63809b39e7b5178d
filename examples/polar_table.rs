//! Writes the source of `src/fuzzy/polar/table.rs` to standard output, some seconds of density evolution:
//! `cargo run --release --example polar_table`.

#![allow(clippy::print_stdout, reason = "the table is what the program is for")]

fn main() {
    print!("{}", devkey::fuzzy::certify::table());
}
