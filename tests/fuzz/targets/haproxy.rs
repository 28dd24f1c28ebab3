//! What HAProxy answers, and the name of a server that is put into a command to it. The first line of the bytes is the
//! name, the rest the answer.

use super::is_showable;
use spot_watchdog::actions::haproxy::BackendServer;
use spot_watchdog::actions::haproxy::replies::{command_result, server_state, sessions};

pub fn look(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (name, answer) = text.split_once('\n').unwrap_or(("", &text));
    if let Some(server) = BackendServer::parse(name) {
        // No other command hides in it.
        assert_eq!(server.to_string(), name);
        assert!(!name.contains([' ', ';', '\n', '\\']), "{name}");
        ask(&server, answer);
    }
    if let Some(server) = BackendServer::parse("llm/gpu1") {
        ask(&server, answer);
        ask(&server, &text);
    }
}

fn ask(server: &BackendServer, answer: &str) {
    match command_result(answer) {
        Ok(()) => assert!(answer.trim().is_empty(), "{answer:?} is no yes"),
        Err(error) if server.to_string().len() < 200 => is_showable(&error.of(server).to_string(), 800),
        Err(_) => {}
    }
    let table = server_state(answer, server).is_some() || sessions(answer, server).is_some();
    assert!(!table || answer.contains("# "), "there is no table in {answer:?}");
}
