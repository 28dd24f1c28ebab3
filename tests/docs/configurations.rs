//! Every configuration and every emulator script that is shown is taken by what reads it, and code that is shown stands in
//! the file that it is from.

use crate::configuration::is_taken;
use crate::markdown::{pages, root};
use spot_watchdog::emulators::aws::SERVICE;
use spot_watchdog::emulators::service::Play;

#[test]
fn every_configuration_that_is_shown_is_taken() {
    let (mut configurations, mut scripts) = (0, 0);
    for page in pages() {
        for block in page.blocks.iter().filter(|block| block.language == "toml") {
            if block.text.contains("[[trouble]]") {
                Play::parse(&SERVICE, &block.text, &page.at(block.line)).unwrap();
                scripts += 1;
            } else {
                is_taken(&page.at(block.line), &block.text);
                configurations += 1;
            }
        }
    }
    assert!(configurations > 8 && scripts > 0, "{configurations} and {scripts}");
}

#[test]
fn code_that_is_shown_stands_in_its_file() {
    let mut shown = 0;
    for page in pages() {
        for block in page.blocks.iter().filter(|block| block.language == "rust") {
            let place = page.at(block.line);
            let file = block.mark.strip_prefix("from ").unwrap_or_else(|| panic!("{place}: from which file?"));
            let source = std::fs::read_to_string(root().join(file)).unwrap_or_else(|error| panic!("{place}: {error}"));
            // What a line with `…` leaves out may be anything.
            let mut rest = source.as_str();
            for part in block.text.split_inclusive('\n').collect::<Vec<_>>().split(|line| line.trim() == "…") {
                let part = part.concat();
                let (_, after) = rest.split_once(&part).unwrap_or_else(|| panic!("{place}: {file} has no\n{part}"));
                rest = after;
            }
            shown += 1;
        }
    }
    assert!(shown > 3, "{shown}");
}
