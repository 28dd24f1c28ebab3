//! The answer to one request, at one moment.
//!
//! By the EC2 User Guide ("Use IMDSv2", "Instance metadata categories"); error pages as they were captured on EC2.

use super::items::items;
use crate::emulators::service::{Answer, MetadataRequest, Reply, RequestContext, listing};
use axum::http::Method;

/// The header that asks for a life in seconds, confirms it, and tells what is left of it.
const TTL_HEADER: &str = "x-aws-ec2-metadata-token-ttl-seconds";
/// The header that carries a token.
const TOKEN_HEADER: &str = "x-aws-ec2-metadata-token";

/// The versions that the root lists, as AWS documents them; items are the same in all of them here.
const VERSIONS: [&str; 29] = [
    "1.0",
    "2007-01-19",
    "2007-03-01",
    "2007-08-29",
    "2007-10-10",
    "2007-12-15",
    "2008-02-01",
    "2008-09-01",
    "2009-04-04",
    "2011-01-01",
    "2011-05-01",
    "2012-01-12",
    "2014-02-25",
    "2014-11-05",
    "2015-10-20",
    "2016-04-19",
    "2016-06-30",
    "2016-09-02",
    "2018-03-28",
    "2018-08-17",
    "2018-09-24",
    "2019-10-01",
    "2020-10-27",
    "2021-01-03",
    "2021-03-23",
    "2021-07-15",
    "2022-09-24",
    "2024-04-11",
    "latest",
];

/// An error page.
pub(super) fn error(status: u16) -> Reply {
    let title = match status {
        400 => "400 - Bad Request",
        401 => "401 - Unauthorized",
        403 => "403 - Forbidden",
        404 => "404 - Not Found",
        405 => "405 - Method Not Allowed",
        429 => "429 - Too Many Requests",
        500 => "500 - Internal Server Error",
        503 => "503 - Service Unavailable",
        _ => "Error",
    };
    let body = format!(
        "<?xml version=\"1.0\" encoding=\"iso-8859-1\"?>\n\
         <!DOCTYPE html PUBLIC \"-//W3C//DTD XHTML 1.0 Transitional//EN\"\n\
         \t\"http://www.w3.org/TR/xhtml1/DTD/xhtml1-transitional.dtd\">\n\
         <html xmlns=\"http://www.w3.org/1999/xhtml\" xml:lang=\"en\" lang=\"en\">\n \
         <head>\n  <title>{title}</title>\n </head>\n <body>\n  <h1>{title}</h1>\n </body>\n</html>\n"
    );
    Reply { status, content_type: "text/html", ..Reply::text(body) }
}

/// Answers a request.
pub(super) fn reply(asked: &MetadataRequest<'_>, moment: &mut RequestContext<'_>) -> Answer {
    Answer::Reply(answer(asked, moment))
}

fn answer(asked: &MetadataRequest<'_>, moment: &mut RequestContext<'_>) -> Reply {
    if *asked.method == Method::PUT {
        return open_session(asked, moment);
    }
    if *asked.method != Method::GET && *asked.method != Method::HEAD {
        return error(405);
    }
    let left = match asked.headers.get(TOKEN_HEADER) {
        Some(token) => match moment.session_left(token) {
            Some(left) => Some(left),
            None => return error(401),
        },
        None if moment.setting("http-tokens") == "optional" => None,
        None => return error(401),
    };
    Reply { headers: left.map(ttl).into_iter().collect(), ..item(asked.path, moment) }
}

fn ttl(seconds: u64) -> (&'static str, String) {
    (TTL_HEADER, seconds.to_string())
}

fn open_session(asked: &MetadataRequest<'_>, moment: &mut RequestContext<'_>) -> Reply {
    let Some((version, "api/token")) = split(asked.path) else { return error(405) };
    if version != "latest" || asked.headers.contains_key("x-forwarded-for") {
        return error(403);
    }
    match moment.open_session(asked.headers.get(TTL_HEADER)) {
        Some((token, seconds)) => Reply { headers: vec![ttl(seconds)], ..Reply::text(token) },
        None => error(400),
    }
}

fn item(path: &str, moment: &RequestContext<'_>) -> Reply {
    if path == "/" {
        return Reply::text(VERSIONS.join("\n"));
    }
    let Some((_, below)) = split(path) else { return error(404) };
    let mut all = items(moment);
    if let Some(value) = all.remove(below) {
        return Reply::text(value);
    }
    listing(&all, below).map_or_else(|| error(404), Reply::text)
}

/// The version that a path begins with, and what follows.
fn split(path: &str) -> Option<(&str, &str)> {
    let path = path.strip_prefix('/')?;
    let (version, below) = path.split_once('/').unwrap_or((path, ""));
    VERSIONS.contains(&version).then_some((version, below))
}

#[cfg(test)]
#[path = "reply_tests.rs"]
mod tests;
