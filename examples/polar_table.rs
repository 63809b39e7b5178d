//! Writes the table of information positions: `cargo run --release --example polar_table`.

#![allow(clippy::print_stdout, reason = "it is what the program is for")]

fn main() {
    print!("{}", devkey::fuzzy::certify::table());
}
