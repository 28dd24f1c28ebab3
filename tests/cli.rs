//! Goldens of the command line: the help of each command, what a wrong configuration is answered with, and the schema of
//! the status, so that nobody changes it unawares.
//!
//! `TRYCMD=overwrite cargo test --test cli` writes them anew; read the difference before it is committed.

#[test]
fn the_command_line_answers_as_it_is_written_down() {
    trycmd::TestCases::new()
        .case("tests/cli/*.trycmd")
        .case("tests/cli/*.toml")
        .env("COLUMNS", "100")
        .env("HOME", "/nonexistent");
}
