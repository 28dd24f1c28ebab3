//! What a machine's firmware says of itself, and what answers where a metadata service may be, to what is decided of it. The
//! first byte says where it runs, the second with which status is answered, the third whether that is a failure; the rest is
//! lines, of which the first three are texts of the firmware, and then the body.

use super::{Bytes, is_showable};
use reqwest::header::HeaderMap;
use spot_watchdog::sources::detection::{
    ASSET_TAG, Candidate, FirstLook, MachineSigns, PRODUCT, Place, VENDOR, first_look,
};
use spot_watchdog::sources::transports::http::{HttpFailure, HttpResponse, RequestFailure, RequestOutcome};
use spot_watchdog::sources::{ROWS, SourceConfig};
use spot_watchdog::view::CloudState;
use std::time::Duration;

pub fn look(data: &[u8]) {
    let mut bytes = Bytes(data);
    let place = bytes.of(&[Place::Machine, Place::Container, Place::Pod]);
    let status = bytes.of(&[200, 404, 401, 500]);
    let is_failure = bytes.byte() % 2 == 1;
    let mut parts = bytes.0.splitn(4, |byte| *byte == b'\n');
    let mut text = || String::from_utf8_lossy(parts.next().unwrap_or_default()).into_owned();
    let texts = [(VENDOR, text()), (PRODUCT, text()), (ASSET_TAG, text())];
    let body = parts.next().unwrap_or_default().to_vec();
    let texts = texts.into_iter().filter(|(_, text)| !text.is_empty()).collect();
    let signs = MachineSigns { texts, place, ..MachineSigns::default() };
    let answer = if is_failure {
        let opening = RequestOutcome::Failed(RequestFailure::Broken(String::from_utf8_lossy(&body).into_owned()));
        Err(HttpFailure::NoSession { opening, plain: Some(RequestOutcome::Status(status)) })
    } else {
        Ok(HttpResponse { status, headers: HeaderMap::new(), body })
    };
    for named in [None, Some("http://127.0.0.1:1338")] {
        let search = match first_look(&signs, candidates(), named) {
            FirstLook::Decided(finding) => {
                is_showable(&finding.sentence, 400);
                assert_eq!(finding.state, CloudState::OnlySignals);
                continue;
            }
            FirstLook::Open(search) => search,
        };
        is_showable(&search.beginning().sentence, 400);
        let none = search.asked.iter().map(|_| None).collect::<Vec<_>>();
        let all = search.asked.iter().map(|_| Some(answer.clone())).collect::<Vec<_>>();
        for answers in [none, all] {
            let known = search.conclude(&answers);
            assert_eq!(known, search.conclude(&answers), "it is pure");
            assert_eq!(known.source.is_some(), known.finding.state == CloudState::Found, "{known:?}");
            assert!(known.source.is_some() || !known.is_heard, "{known:?}");
            assert!(search.certain().is_none() || known.source.is_some(), "{known:?}");
        }
    }
}

/// All that may be found.
fn candidates() -> Vec<Candidate> {
    let all = ROWS.iter().filter_map(|row| {
        let config =
            SourceConfig { keys: toml::Table::new(), poll_interval: Duration::from_secs(5), environment: &|_| None };
        Some(Candidate { detection: row.detection.as_ref()?, source: (row.build)(config).ok()? })
    });
    all.collect()
}
