//! Learns what the machine is, item by item; each is checked before it is believed.

use super::diagnose::status_fault;
use super::{TimeTextCloud, fault};
use crate::engine::{Fault, ProbeName};
use crate::sources::item::word;
use crate::sources::transports::http::HttpResponse;
use crate::view::{Machine, clip};

/// Reads one item into what is known. All but the machine's name may be missing.
pub(super) fn identify(
    cloud: &TimeTextCloud,
    probe: &ProbeName,
    answer: &HttpResponse,
    machine: &mut Machine,
) -> Result<(), Fault> {
    match answer.status {
        200 => {}
        404 if probe.as_str() != cloud.identity[0].0 => return Ok(()),
        status => return Err(status_fault(cloud, probe.as_str(), status)),
    }
    let item = cloud.identity.iter().find(|(name, _)| *name == probe.as_str());
    let (Some((_, put)), Some(text)) = (item, word(&answer.body)) else {
        let shown = clip(&String::from_utf8_lossy(&answer.body), 60);
        return Err(fault("unreadable", format!("{probe} was answered with \"{shown}\", which is not believed")));
    };
    put(machine, text.to_owned());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::time_text::tested::{CLOUD, answer};

    fn ask(item: &str, status: u16, body: &[u8], machine: &mut Machine) -> Result<(), String> {
        identify(&CLOUD, &ProbeName::new(item), &answer(status, body), machine).map_err(|fault| fault.word)
    }

    #[test]
    fn each_item_goes_where_it_belongs_and_all_but_the_name_may_be_missing() {
        let mut machine = Machine::default();
        assert_eq!(ask("id", 200, b"i-0abc\n", &mut machine), Ok(()));
        assert_eq!(ask("region", 404, b"<html>", &mut machine), Ok(()));
        assert_eq!(machine, Machine { id: "i-0abc".to_owned(), ..Machine::default() });
        assert_eq!(ask("region", 200, b"cn-hangzhou", &mut machine), Ok(()));
        assert_eq!(machine.region, "cn-hangzhou");
    }

    #[test]
    fn what_is_not_believed_changes_nothing() {
        let mut machine = Machine::default();
        for body in [&b""[..], b"i-0abc\nX-Evil: 1", b"\xff", b"$(reboot)", b"<html>", &[b'a'; 65]] {
            assert_eq!(ask("id", 200, body, &mut machine), Err("unreadable".to_owned()), "{body:?}");
        }
        assert_eq!(ask("shoe-size", 200, b"42", &mut machine), Err("unreadable".to_owned()));
        assert_eq!(ask("id", 404, b"", &mut machine), Err("unexpected-status".to_owned()));
        assert_eq!(ask("id", 500, b"", &mut machine), Err("server-error".to_owned()));
        assert_eq!(machine, Machine::default());
    }
}
