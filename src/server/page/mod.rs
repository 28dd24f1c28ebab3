//! The page at `/`: a [`Status`] as HTML, for people. Pure: it reads a status and touches nothing.
//!
//! There is one renderer, this one. The first answer is the whole document, so it says everything after one request and
//! without JavaScript; the script in `page.html` then fetches the same main part again (`/?fragment`) whenever `/events`
//! tells of a revision, puts what differs into its place, and counts the seconds in between. So nothing can be said in two
//! ways, and the script stays small enough to be read.

mod calm;
mod episode;
mod headline;
mod html;
mod past;
mod pieces;

use super::{Reason, Status};
use crate::view::Report;
use headline::Headline;
use html::Html;

/// Everything but the state: layout, style and script.
const TEMPLATE: &str = include_str!("../page.html");

/// Where the state stands in the template.
const STATE: &str = "<!--state-->";

/// Where its title stands in the template.
const TITLE: &str = "<!--title-->";

/// What the page may do, as a browser holds it to: its own style and script, known by their hashes, its own icon, and to
/// ask this daemon. The tests hold the hashes to the template.
pub const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; \
    script-src 'sha256-HMkynsHOjg8HRBOxMnF64gSjxX3iFQT3fyOcjWe1Y8c='; \
    style-src 'sha256-kX1iOOkWR01E48s7HnJlaDQOdzlQVxfitzrqKZjkfFM='; \
    img-src data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
    require-trusted-types-for 'script'; trusted-types 'none'";

/// The whole document.
pub fn document(status: &Status, reasons: &[Reason], past: &[Report]) -> String {
    let mut title = Html::default();
    title.text(Headline::of(status, reasons).title(status));
    let (head, rest) = TEMPLATE.split_once(TITLE).unwrap_or((TEMPLATE, ""));
    let (middle, tail) = rest.split_once(STATE).unwrap_or((rest, ""));
    [head, &title.into_string(), middle, &fragment(status, reasons, past), tail].concat()
}

/// The part of it that changes.
pub fn fragment(status: &Status, reasons: &[Reason], past: &[Report]) -> String {
    let headline = Headline::of(status, reasons);
    let mut html = Html::default();
    html.raw("<main id=\"state\"")
        .attr("class", headline.word())
        .attr("data-page", format_args!("{} {}", status.version, script_hash()))
        .attr("data-revision", status.revision)
        .attr("data-title", headline.title(status))
        .attr("data-say", headline.said(status))
        .raw(">");
    headline.hero(status, &mut html);
    let unready: Vec<Reason> = status.unready().collect();
    calm::reasons(&[reasons, &unready].concat(), &mut html);
    match &status.episode {
        Some(open) => {
            episode::steps(open, status.now, &mut html);
            calm::notices(status, &mut html);
        }
        None => {
            calm::plan(status, &mut html);
            calm::notices(status, &mut html);
        }
    }
    calm::sources(status, &mut html);
    past::stories(status, past, &mut html);
    calm::foot(status, &mut html);
    html.raw("</main>");
    html.into_string()
}

/// What tells a page that another version's script runs in it.
fn script_hash() -> &'static str {
    CONTENT_SECURITY_POLICY.split('\'').find(|part| part.starts_with("sha256-")).unwrap_or_default()
}

#[cfg(test)]
mod tests;
