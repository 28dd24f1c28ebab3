//! Every configuration and every emulator script that is shown is taken by what reads it.

use crate::configuration::is_taken;
use crate::markdown::pages;
use spot_watchdog::emulators::aws::Play;

#[test]
fn every_configuration_that_is_shown_is_taken() {
    let (mut configurations, mut scripts) = (0, 0);
    for page in pages() {
        for block in page.blocks.iter().filter(|block| block.language == "toml") {
            if block.text.contains("[[trouble]]") {
                Play::parse(&block.text, &page.at(block.line)).unwrap();
                scripts += 1;
            } else {
                is_taken(&page.at(block.line), &block.text);
                configurations += 1;
            }
        }
    }
    assert!(configurations > 8 && scripts > 0, "{configurations} and {scripts}");
}
