//! Writes `tests/vectors/` again, byte for byte: `cargo run -p bulla-tests --bin make-vectors`.
//!
//! Refuses to do: take arguments; what is written depends on the source alone.

use bulla_tests::vectors;

fn main() -> std::io::Result<()> {
    let directory = vectors::directory();
    let count = vectors::write(&directory)?;
    println!("{count} vectors below {}", directory.display());
    Ok(())
}
