//! Every input that a fuzzer starts from, and every one that it ever broke something with, on each target of
//! `tests/fuzz`: none breaks anything now. `tests/slow/fuzz` looks for more.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![expect(clippy::print_stderr, reason = "what was tried is shown")]

#[path = "fuzz/targets/mod.rs"]
#[expect(unreachable_pub, reason = "to the fuzzers it is a library")]
#[expect(clippy::panic, reason = "a target fails by panicking")]
mod targets;

use std::fs;
use std::path::Path;

#[test]
fn no_input_of_the_corpus_breaks_its_target() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus");
    let mut tried = 0;
    for (name, look) in targets::ALL {
        let inputs: Vec<_> = fs::read_dir(corpus.join(name)).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert!(!inputs.is_empty(), "{name} has no seeds");
        for input in inputs {
            eprintln!("{name} {}", input.file_name().unwrap().display());
            look(&fs::read(input).unwrap());
            tried += 1;
        }
    }
    eprintln!("{tried} inputs for {} targets", targets::ALL.len());
}
