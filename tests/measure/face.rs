//! What is shown to others: how soon it answers, and what it costs the watch when many follow it.

use super::process;
use super::stand::{Bench, Log, Stand};
use super::table::{Row, Samples, Target};
use anyhow::{Context, Result, bail};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// How many follow.
const FOLLOWERS: usize = 200;

/// How often the metadata service is asked while they do.
const INTERVAL: Duration = Duration::from_millis(200);

/// How long polls are watched, with and without followers.
const WATCHED: Duration = Duration::from_secs(10);

/// How many questions are asked for a median.
const QUESTIONS: usize = 2_000;

const SOON: Duration = Duration::from_secs(20);

/// `/status` and `/metrics` over a connection that stays, in an episode whose hook has ended.
pub(crate) fn answers(bench: &Bench) -> Result<Vec<Row>> {
    let mut stand = bench.stand()?;
    let hook = stand.hook();
    stand.start(&["--hook", &hook, "--poll-interval", "1s"], Log::Kept)?;
    stand.until("the first answer", SOON, || stand.seen.quiet())?;
    stand.interrupt();
    stand.stamped(SOON)?;
    thread::sleep(Duration::from_secs(1));
    ["/status", "/metrics"]
        .into_iter()
        .zip([1.0, 2.0])
        .map(|(path, most)| {
            let mut asker = Asker::connect(stand.served())?;
            let mut bytes = 0;
            let mut samples = Vec::with_capacity(QUESTIONS);
            for _ in 0..QUESTIONS {
                let began = Instant::now();
                bytes = asker.ask(path)?;
                samples.push(began.elapsed().as_secs_f64() * 1_000.0);
            }
            let samples = Samples::new(samples);
            Ok(Row {
                what: format!("{path}, median"),
                figure: samples.percentile(50),
                unit: "ms",
                target: Target::AtMost(most),
                beside: format!(
                    "of {} answers of {bytes} bytes in an episode; 99th percentile {:.2} ms",
                    samples.count(),
                    samples.percentile(99)
                ),
            })
        })
        .collect()
}

/// Many who follow `/events` through a notice, a hook that prints, and its end.
pub(crate) fn streams(bench: &Bench) -> Result<Vec<Row>> {
    let mut stand = bench.stand()?;
    let chatty = format!("sh -c 'for i in 1 2 3 4 5; do echo $i; sleep 1; done; exec {}'", stand.hook());
    stand.start(&["--hook", &chatty, "--poll-interval", &format!("{}ms", INTERVAL.as_millis())], Log::Kept)?;
    stand.until("the first answer", SOON, || stand.seen.quiet())?;
    thread::sleep(Duration::from_secs(3));
    let alone = latest(&stand);
    let idle = process::memory(stand.pid())?;
    process::forget_peak(stand.pid())?;

    let events = Arc::new(AtomicUsize::new(0));
    let mut followers = Vec::new();
    for _ in 0..FOLLOWERS {
        let mut stream = TcpStream::connect(stand.served()).context("a follower cannot connect")?;
        write!(stream, "GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
        let (reader, seen) = (stream.try_clone()?, Arc::clone(&events));
        thread::Builder::new().stack_size(64 * 1024).spawn(move || {
            let lines = BufReader::with_capacity(1024, reader).lines().map_while(Result::ok);
            lines.filter(|line| line.starts_with("data:")).for_each(|_| {
                seen.fetch_add(1, Ordering::Relaxed);
            });
        })?;
        followers.push(stream);
    }
    let all_heard = || (events.load(Ordering::Relaxed) >= FOLLOWERS).then_some(());
    stand.until("the first event of each follower", SOON, all_heard)?;
    stand.interrupt();
    let beside = latest(&stand);
    stand.stamped(SOON)?;
    let (held, peak) = (process::memory(stand.pid())?, process::peak(stand.pid())?);
    let told = events.load(Ordering::Relaxed);
    if told < 3 * FOLLOWERS {
        bail!("{FOLLOWERS} followers were told {told} events through an episode");
    }
    drop(followers);
    Ok(vec![
        Row {
            what: format!("{FOLLOWERS} event streams, memory added"),
            figure: mebibytes(peak.saturating_sub(idle.resident)),
            unit: "MiB",
            target: Target::AtMost(8.0),
            beside: format!(
                "the peak, through an episode of {told} events; {:.2} MiB while they stay",
                mebibytes(held.resident.saturating_sub(idle.resident))
            ),
        },
        Row {
            what: format!("{FOLLOWERS} event streams, the latest poll"),
            figure: beside,
            unit: "ms late",
            target: Target::AtMost(50.0),
            beside: format!("polls every {} ms; {alone:.2} ms late without streams", INTERVAL.as_millis()),
        },
    ])
}

/// How late the latest question of the next seconds came, in milliseconds after the one before it and the interval.
fn latest(stand: &Stand<'_>) -> f64 {
    let from = stand.seen.asked().len();
    thread::sleep(WATCHED);
    let asked = stand.seen.asked();
    let gaps = asked[from..].windows(2).map(|pair| Duration::from_nanos(pair[1].saturating_sub(pair[0])));
    gaps.map(|gap| gap.saturating_sub(INTERVAL).as_secs_f64() * 1_000.0).fold(0.0, f64::max)
}

/// A connection that stays.
struct Asker(BufReader<TcpStream>);

impl Asker {
    fn connect(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(SOON))?;
        Ok(Self(BufReader::with_capacity(64 * 1024, stream)))
    }

    /// Asks, and reads the whole answer. Returns the length of its body.
    fn ask(&mut self, path: &str) -> Result<usize> {
        self.0.get_mut().write_all(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes())?;
        let (mut line, mut length) = (String::new(), None);
        loop {
            line.clear();
            self.0.read_line(&mut line)?;
            match line.trim_end().to_ascii_lowercase().split_once(": ") {
                Some(("content-length", number)) => length = Some(number.parse::<usize>()?),
                Some(_) => {}
                None if line.starts_with("HTTP/1.1 200") => {}
                None if line.trim_end().is_empty() => break,
                None => bail!("{path} answered {line}"),
            }
        }
        let length = length.context("an answer without its length")?;
        self.0.read_exact(&mut vec![0; length])?;
        Ok(length)
    }
}

#[expect(clippy::cast_precision_loss, reason = "far below what a double holds")]
fn mebibytes(kibibytes: u64) -> f64 {
    kibibytes as f64 / 1024.0
}
