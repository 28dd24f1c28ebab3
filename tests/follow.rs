//! `watchdog status --follow` on a real terminal: a pseudo-terminal whose other end draws what it is sent, so that what
//! is compared is what a person would see.

#![expect(clippy::disallowed_methods, reason = "a test beside real processes has nothing to do but wait for them")]
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test stops where it fails")]

#[expect(dead_code, reason = "other tests play longer stories with it")]
#[path = "support/daemon.rs"]
mod stand;

use rustix::process::Signal;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcgetattr, tcsetwinsize};
use spot_watchdog::emulators::service::{EmulatedAction, Script, StatedTime};
use spot_watchdog::process;
use stand::{Cloud, Scene, Watch, wait_for};
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use unicode_width::UnicodeWidthChar;

/// What a terminal shows: enough of one for what may be sent to it; anything else fails the test.
struct Picture {
    rows: Vec<Vec<char>>,
    columns: usize,
    at: (usize, usize),
    /// Lines that went out of sight.
    scrolled: usize,
    is_coloured: bool,
    /// Letters that are coloured, in all.
    coloured: usize,
    /// A sequence that is not whole yet.
    escape: String,
}

impl Picture {
    fn new(columns: u16, rows: u16) -> Self {
        let columns = usize::from(columns);
        let rows = vec![vec![' '; columns]; rows.into()];
        Self { rows, columns, at: (0, 0), scrolled: 0, is_coloured: false, coloured: 0, escape: String::new() }
    }

    fn take(&mut self, text: &str) {
        for letter in text.chars() {
            let (row, column) = self.at;
            match letter {
                _ if !self.escape.is_empty() => {
                    self.escape.push(letter);
                    if letter.is_ascii_alphabetic() {
                        let sequence = std::mem::take(&mut self.escape);
                        self.obey(&sequence);
                    }
                }
                '\u{1b}' => self.escape.push(letter),
                '\r' => self.at.1 = 0,
                '\n' if row + 1 == self.rows.len() => {
                    self.rows.remove(0);
                    self.rows.push(vec![' '; self.columns]);
                    self.scrolled += 1;
                }
                '\n' => self.at.0 += 1,
                _ => {
                    assert!(!letter.is_control(), "{letter:?} would move a cursor or ring a bell");
                    let cells = letter.width().unwrap_or(0);
                    assert!(column + cells <= self.columns, "a line is longer than a row: {}", self.text());
                    for cell in 0..cells {
                        self.rows[row][column + cell] = if cell == 0 { letter } else { '\0' };
                    }
                    self.at.1 += cells;
                    self.coloured += usize::from(self.is_coloured);
                }
            }
        }
    }

    fn obey(&mut self, sequence: &str) {
        let (row, column) = self.at;
        match sequence.strip_prefix("\u{1b}[").and_then(|rest| rest.split_at_checked(rest.len() - 1)) {
            Some((count, "A")) => self.at.0 = row.checked_sub(count.parse().unwrap()).expect("above the terminal"),
            Some(("", "K")) => self.rows[row][column..].fill(' '),
            Some(("", "J")) => {
                self.rows[row][column..].fill(' ');
                self.rows[row + 1..].iter_mut().for_each(|row| row.fill(' '));
            }
            Some(("0", "m")) => self.is_coloured = false,
            Some(("1" | "2" | "31" | "32", "m")) => self.is_coloured = true,
            _ => panic!("{sequence:?} is not for a terminal of others"),
        }
    }

    fn text(&self) -> String {
        let line = |row: &Vec<char>| row.iter().filter(|cell| **cell != '\0').collect::<String>().trim_end().to_owned();
        self.rows.iter().map(line).collect::<Vec<_>>().join("\n").trim_end().to_owned()
    }
}

/// `watchdog status --follow` on a terminal of its own.
struct Follower {
    child: Child,
    terminal: File,
    picture: Arc<Mutex<Picture>>,
    sent: Arc<Mutex<String>>,
    modes: String,
}

impl Follower {
    fn start(scene: &Scene, address: SocketAddr, (columns, rows): (u16, u16), around: &[(&str, &str)]) -> Self {
        // A test that was started with `&` in a script ignores INT, and what it starts would inherit it.
        process::give_defaults().unwrap();
        let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&terminal).unwrap();
        unlockpt(&terminal).unwrap();
        tcsetwinsize(&terminal, Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
        let path = ptsname(&terminal, Vec::new()).unwrap().into_string().unwrap();
        let end = || File::options().read(true).write(true).open(&path).unwrap();
        let ours = scene.command(&["status", "--follow", "--listen", &address.to_string()]);
        // It has to be the terminal's own session, or Ctrl-C would not reach it.
        let mut command = Command::new("setsid");
        command.arg("--ctty").arg(ours.get_program()).args(ours.get_args()).env_clear();
        command.envs(ours.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command.envs(around.iter().copied()).stdin(end()).stdout(end()).stderr(end());
        let terminal = File::from(terminal);
        let child = command.spawn().unwrap();
        let (picture, sent) = (Arc::new(Mutex::new(Picture::new(columns, rows))), Arc::new(Mutex::new(String::new())));
        let (mut from, ours, raw) = (terminal.try_clone().unwrap(), picture.clone(), sent.clone());
        let modes = format!("{:?}", tcgetattr(&terminal).unwrap());
        thread::spawn(move || {
            let (mut part, mut rest) = ([0; 4096], Vec::new());
            while let Ok(count @ 1..) = from.read(&mut part) {
                rest.extend_from_slice(&part[..count]);
                // A letter may come in two parts.
                let whole = match std::str::from_utf8(&rest) {
                    Ok(_) => rest.len(),
                    Err(error) => error.valid_up_to(),
                };
                let text = String::from_utf8(rest.drain(..whole).collect()).unwrap();
                raw.lock().unwrap().push_str(&text);
                ours.lock().unwrap().take(&text);
            }
        });
        Self { child, terminal, picture, sent, modes }
    }

    /// What is seen now.
    fn sees(&self) -> String {
        self.picture.lock().unwrap().text()
    }

    /// Waits until all of this is seen.
    fn until_it_sees(&self, words: &[&str]) -> String {
        let what = format!("{words:?}");
        wait_for(&what, || {
            let seen = self.sees();
            words.iter().all(|word| seen.contains(word)).then_some(seen)
        })
    }

    fn sent(&self) -> String {
        self.sent.lock().unwrap().clone()
    }

    /// Ctrl-C, and how it ends.
    fn interrupt(&mut self) -> ExitStatus {
        self.terminal.write_all(b"\x03").unwrap();
        wait_for("the end of a follower", || self.child.try_wait().unwrap())
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A hook that says what no terminal should obey, and goes on.
const HOOK: &str = r"printf 'saving \033[2J\033]0;mine\007\033[31mred\n'
printf '%s\n' '<b>step</b> 日本語日本語日本語日本語日本語日本語日本語日本語日本語日本語日本語日本語'
sleep 60 & wait";

fn watch(scene: &Scene, cloud: &Cloud, hook: &str, listen: &str) -> (Watch, SocketAddr) {
    let watch = Watch::start(scene.watch(&cloud.url, &["--hook", hook, "--listen", listen]));
    let address = wait_for("the address", || watch.address_said());
    (watch, address)
}

#[test]
fn a_follower_on_a_terminal_draws_in_place_counts_down_and_outlives_a_restart() {
    let (cloud, scene) = (Cloud::playing(Script::default()), Scene::new());
    let hook = scene.script("save", HOOK);
    let (mut first, address) = watch(&scene, &cloud, &hook, "127.0.0.1:0");
    let mut wide = Follower::start(&scene, address, (100, 24), &[("TERM", "xterm-256color")]);
    let narrow = Follower::start(&scene, address, (30, 8), &[("TERM", "xterm"), ("NO_COLOR", "1")]);
    wide.until_it_sees(&["notice   none", "step     save: idle"]);
    narrow.until_it_sees(&["notice   none"]);

    cloud.emulator.interrupt(EmulatedAction::Terminate, StatedTime::default());
    let seen = wide.until_it_sees(&["left     1", "save: running for", "| saving"]);
    assert!(seen.contains("notice   interruption from aws, active, terminate, 1"), "{seen}");
    assert!(seen.contains("| saving red") && !seen.contains("mine"), "{seen}");
    for title in ["left ", "machine ", "step ", "now "] {
        assert_eq!(seen.lines().filter(|line| line.starts_with(title)).count(), 1, "{title}:\n{seen}");
    }
    let now = seen.lines().last().unwrap().to_owned();
    wait_for("seconds to pass on the screen", || (!wide.sees().contains(&now)).then_some(()));
    let small = narrow.until_it_sees(&["left     1", "more lines: the"]);
    assert_eq!(small.lines().count(), 7, "{small}");

    first.signal(Signal::KILL);
    first.ends();
    wide.until_it_sees(&["trouble  still asking; no "]);
    let (mut second, _) = watch(&scene, &cloud, &hook, &address.to_string());
    let again = wait_for("what it sees after the restart", || {
        let seen = wide.sees();
        (!seen.contains("still asking") && seen.contains("save: ")).then_some(seen)
    });
    assert_eq!(again.lines().filter(|line| line.starts_with("left ")).count(), 1, "{again}");

    assert_eq!(wide.interrupt().signal(), Some(2), "as any program that is interrupted");
    let picture = wide.picture.lock().unwrap();
    assert_eq!((picture.is_coloured, picture.scrolled), (false, 0));
    assert!(picture.coloured > 0 && picture.escape.is_empty());
    let last = picture.rows[picture.at.0].iter().collect::<String>();
    assert!(["", "^C"].contains(&last.trim()), "whoever types on does so on a line of his own: {last}");
    drop(picture);
    assert_eq!(
        format!("{:?}", tcgetattr(&wide.terminal).unwrap()),
        wide.modes,
        "the terminal's modes are as they were"
    );
    let picture = narrow.picture.lock().unwrap();
    assert_eq!((picture.coloured, picture.scrolled), (0, 0), "NO_COLOR is kept, and nothing scrolls");
    drop(picture);
    second.signal(Signal::KILL);
    second.ends();
}

/// What no line of ours may have but at its end: characters that move a cursor, or turn the direction of a line.
fn unprintable(text: &str) -> Vec<char> {
    text.chars().filter(|letter| *letter != '\n' && !spot_watchdog::view::is_printable(*letter)).collect()
}

/// Answers every request with this, as long as the test lives.
fn stranger(answer: Vec<u8>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(&answer);
        }
    });
    address
}

#[test]
fn whoever_holds_the_port_moves_no_cursor_of_whoever_asks() {
    const ATTACK: &str = "\u{1b}[2J\u{1b}]0;title\u{7}\u{9b}31m\u{202e}\u{2028}\u{7f}\r";
    let scene = Scene::new();
    let text = serde_json::to_string(ATTACK).unwrap();
    // A whole status, of which each text is theirs.
    let (cloud, hook) = (Cloud::playing(Script::default()), scene.script("save", HOOK));
    let (mut real, address) = watch(&scene, &cloud, &hook, "127.0.0.1:0");
    let said = scene.command(&["status", "--json", "--listen", &address.to_string()]).output().unwrap();
    real.signal(Signal::KILL);
    real.ends();
    let mut status: serde_json::Value = serde_json::from_slice(&said.stdout).unwrap();
    for place in ["/machine/id", "/machine/zone", "/sources/0/name", "/steps/0/name", "/steps/0/describe", "/version"] {
        *status.pointer_mut(place).unwrap_or_else(|| panic!("{place}: {said:?}")) = ATTACK.into();
    }
    status["health"] = serde_json::json!([{ "word": ATTACK, "sentence": ATTACK }]);
    let bodies = [
        ("whole", status.to_string()),
        ("of another version", format!("{{\"schema\":{text},\"revision\":1}}")),
        ("no status", format!("{{\"schema\":1,\"mode\":{text}}}")),
        ("an unknown word", status.to_string().replace("\"running\"", &text)),
        ("no JSON", format!("{ATTACK}\n{ATTACK}")),
    ];
    for (what, body) in bodies {
        for head in ["200 OK", "503 \u{1b}[2J\u{1b}c"] {
            let answer =
                format!("HTTP/1.1 {head}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}", body.len());
            let address = stranger(answer.into_bytes()).to_string();
            for arguments in [&["status"][..], &["status", "--json"], &["status", "--probe", "livez"]] {
                let asked = scene.command(&[arguments, &["--listen", &address]].concat()).output().unwrap();
                let shown =
                    format!("{}{}", String::from_utf8_lossy(&asked.stdout), String::from_utf8_lossy(&asked.stderr));
                assert!(!shown.is_empty(), "{what}, {arguments:?}");
                assert!(unprintable(&shown).is_empty(), "{what}, {arguments:?}: {shown:?}");
            }
        }
    }
}

#[test]
fn root_does_not_believe_another_user_who_took_the_port() {
    const SERVE: &str = "import http.server as h\n\
        class Calm(h.BaseHTTPRequestHandler):\n\
        \x20   def do_GET(self): self.send_response(200); self.end_headers(); self.wfile.write(b'all is well\\n')\n\
        server = h.HTTPServer(('127.0.0.1', 0), Calm)\n\
        print(server.server_port, flush=True); server.serve_forever()";
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let scene = Scene::new();
    let mut python = Command::new("python3");
    python.args(["-c", SERVE]).current_dir("/").uid(65_534).gid(65_534).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = python.spawn().unwrap();
    let mut port = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut port).unwrap();
    let address = format!("127.0.0.1:{}", port.trim());
    let ask = |arguments: &[&str]| {
        let asked = scene.command(arguments).env("SPOT_WATCHDOG_LISTEN", &address).output().unwrap();
        (
            asked.status.code(),
            format!("{}{}", String::from_utf8_lossy(&asked.stdout), String::from_utf8_lossy(&asked.stderr)),
        )
    };
    let refused = [&["status"][..], &["status", "--follow"], &["status", "--probe", "livez"]].map(ask);
    // Who is named is asked, and a state directory says as whom the watchdog runs.
    let named = ask(&["status", "--probe", "livez", "--listen", &address]);
    std::fs::create_dir_all(scene.state()).unwrap();
    std::os::unix::fs::chown(scene.state(), Some(65_534), None).unwrap();
    let known = ask(&["status", "--probe", "livez"]);
    let _ = child.kill();
    let _ = child.wait();
    for (code, said) in refused {
        assert!(code == Some(1) && said.contains("user 65534 listens at 127.0.0.1"), "{code:?}: {said}");
    }
    assert_eq!(named, (Some(0), "all is well\n".to_owned()));
    assert_eq!(known, (Some(0), "all is well\n".to_owned()));
}

#[test]
fn a_terminal_that_cannot_draw_gets_a_line_for_each_change() {
    let (cloud, scene) = (Cloud::playing(Script::default()), Scene::new());
    let hook = scene.script("save", HOOK);
    let (mut watch, address) = watch(&scene, &cloud, &hook, "127.0.0.1:0");
    let dumb = Follower::start(&scene, address, (200, 50), &[("TERM", "dumb")]);
    dumb.until_it_sees(&["Z watching aws; calm"]);
    cloud.emulator.interrupt(EmulatedAction::Terminate, StatedTime::default());
    dumb.until_it_sees(&["left; save running"]);
    let sent = dumb.sent();
    assert!(!sent.contains('\u{1b}'), "{sent:?}");
    let said: Vec<&str> = sent.lines().map(|line| line.split_once(' ').unwrap().1).collect();
    assert_eq!(said.iter().filter(|line| line.contains("save running")).count(), 1, "{said:?}");
    watch.signal(Signal::KILL);
    watch.ends();
}
