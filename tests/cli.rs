//! Goldens of the command line: the help of each command, and what a wrong configuration is answered with.
//!
//! `TRYCMD=overwrite cargo test --test cli` writes them anew; read the difference before it is committed.

#[test]
fn the_command_line_answers_as_it_is_written_down() {
    trycmd::TestCases::new().case("tests/cli/*.trycmd").env("COLUMNS", "100").env("HOME", "/nonexistent");
}
