//! The report as a picture: a lane for each table, and its locks as bars over time. Pure.

use std::fmt::Write as _;
use std::time::Duration;

use crate::apply::rehearse::report::{LockSpan, RehearsedMigration, Report};
use crate::render::{one_line, seconds};
use crate::sql::{LockMode, Queue};

use super::{HEADINGS, NOTHING, cells, is_told, queue_text, remarks, summary, title};

/// In units of the picture.
const WIDTH: f64 = 960.0;
const MARGIN: f64 = 16.0;
/// The names of the migrations, and the times below them.
const TOP: f64 = 64.0;
const NAME: f64 = 22.0;
const BAR: f64 = 16.0;
const GAP: f64 = 4.0;
/// The least width of a bar that can be seen.
const MIN_BAR: f64 = 2.0;

const STYLE: &str = "\
svg{--back:#fff;--text:#1f2328;--faint:#59636e;--line:#d1d9e0;--band:#f6f8fa;\
--all:#cf222e;--writes:#bc4c00;--rest:#0969da;--none:#818b98}\
@media(prefers-color-scheme:dark){svg{--back:#0d1117;--text:#f0f6fc;--faint:#9198a1;--line:#3d444d;\
--band:#151b23;--all:#f85149;--writes:#db6d28;--rest:#4493f8;--none:#656c76}}\
.back{fill:var(--back)}.band{fill:var(--band)}\
text{font:13px system-ui,sans-serif;fill:var(--text)}.faint{fill:var(--faint);font-size:12px}\
.name{font-weight:600}.on{fill:var(--back);font-size:12px;pointer-events:none}.line{stroke:var(--line)}\
.all{fill:var(--all)}.writes{fill:var(--writes)}.rest{fill:var(--rest)}.none{fill:var(--none)}\
.held{fill-opacity:.25;stroke-dasharray:4 3}.held.all{stroke:var(--all)}.held.writes{stroke:var(--writes)}\
.held.rest{stroke:var(--rest)}.rewrite{fill:url(#stripes)}.stripe{stroke:var(--text);stroke-width:2}";

/// One SVG file by itself.
pub fn svg(report: &Report) -> String {
    format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n{}", picture(report))
}

/// One page of HTML with the picture and the tables.
pub fn html(report: &Report) -> String {
    let mut page = String::from(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>Rehearsal</title>\n<style>\n\
         :root{color-scheme:light dark}\n\
         @media(prefers-color-scheme:dark){body{background:#0d1117;color:#f0f6fc}}\n\
         body{font:16px/1.5 system-ui,sans-serif;max-width:72rem;margin:0 auto;padding:1rem}\n\
         .wide{overflow-x:auto}\n.wide svg{display:block;width:100%;min-width:44rem;height:auto}\n\
         table{border-collapse:collapse}\nth,td{text-align:left;padding:.25rem .75rem .25rem 0;\
         border-bottom:1px solid color-mix(in srgb,currentColor 25%,transparent);white-space:nowrap}\n\
         h2{font-size:1.1rem;margin:2rem 0 .5rem}\n</style>\n</head>\n<body>\n<h1>Rehearsal</h1>\n",
    );
    for line in summary(report) {
        let _ = writeln!(page, "<p>{}</p>", escaped(&line));
    }
    let _ = writeln!(page, "<div class=\"wide\" tabindex=\"0\">\n{}</div>", picture(report));
    for migration in &report.migrations {
        section(&mut page, migration);
    }
    page.push_str("</body>\n</html>\n");
    page
}

fn section(page: &mut String, migration: &RehearsedMigration) {
    let _ = writeln!(page, "<h2>{}</h2>", escaped(&title(migration)));
    let tables: Vec<_> = migration.tables.iter().filter(|table| is_told(table)).collect();
    if tables.is_empty() {
        page.push_str(&format!("<p>It {NOTHING}.</p>\n"));
    } else {
        let headings: String =
            HEADINGS.iter().map(|heading| format!("<th scope=\"col\">{heading}</th>")).collect();
        let _ = writeln!(page, "<div class=\"wide\" tabindex=\"0\"><table>\n<tr>{headings}</tr>");
        for table in tables {
            let row: String =
                cells(table).iter().map(|cell| format!("<td>{}</td>", escaped(cell))).collect();
            let _ = writeln!(page, "<tr>{row}</tr>");
        }
        page.push_str("</table></div>\n");
    }
    let created = Some(&migration.created).filter(|created| !created.is_empty());
    let created = created.map(|created| format!("new: {}", created.join(", ")));
    let remarks = remarks(migration);
    for remark in created.into_iter().chain(remarks) {
        let _ = writeln!(page, "<p>{}</p>", escaped(&remark));
    }
}

/// A table with its locks.
struct Lane<'a> {
    table: &'a str,
    /// The modes, from the strongest on; each has a row.
    modes: Vec<LockMode>,
    spans: Vec<(&'a RehearsedMigration, &'a LockSpan)>,
}

/// The tables that something waits for or that are rewritten, in the order in which they are locked.
fn lanes(report: &Report) -> Vec<Lane<'_>> {
    let mut lanes: Vec<Lane<'_>> = Vec::new();
    for migration in &report.migrations {
        for span in &migration.spans {
            if span.lock.queue().is_none() {
                continue;
            }
            let lane = match lanes.iter_mut().find(|lane| lane.table == span.table) {
                Some(lane) => lane,
                None => {
                    lanes.push(Lane { table: &span.table, modes: Vec::new(), spans: Vec::new() });
                    let Some(lane) = lanes.last_mut() else { continue };
                    lane
                }
            };
            if !lane.modes.contains(&span.lock) {
                lane.modes.push(span.lock);
            }
            lane.spans.push((migration, span));
        }
    }
    for lane in &mut lanes {
        lane.modes.sort_by(|a, b| b.cmp(a));
    }
    lanes
}

/// From a time to a place.
struct Scale {
    total: Duration,
}

impl Scale {
    fn x(&self, time: Duration) -> f64 {
        let part = time.as_secs_f64() / self.total.as_secs_f64().max(0.001);
        MARGIN + part.min(1.0) * (WIDTH - 2.0 * MARGIN)
    }

    fn width(&self, from: Duration, until: Duration) -> f64 {
        (self.x(until) - self.x(from)).max(MIN_BAR)
    }

    /// Some five times that are easy to read.
    fn ticks(&self) -> Vec<Duration> {
        let total = self.total.as_secs_f64().max(0.001);
        let rough = total / 5.0;
        let power = 10_f64.powf(rough.log10().floor());
        let steps = [1.0, 2.0, 5.0, 10.0].map(|factor| factor * power);
        let step = steps.into_iter().find(|step| *step >= rough).unwrap_or(rough);
        let times = std::iter::successors(Some(0.0), |time| Some(time + step));
        let times = times.take_while(|time| *time <= total);
        times.take(12).map(|time| Duration::try_from_secs_f64(time).unwrap_or_default()).collect()
    }
}

fn picture(report: &Report) -> String {
    let lanes = lanes(report);
    let scale = Scale { total: report.took };
    let heights = lanes.iter().map(|lane| {
        let rows = lane.modes.iter().fold(0.0, |height, _| height + BAR + GAP);
        NAME + rows + GAP * 2.0
    });
    let heights: Vec<f64> = heights.collect();
    let bottom = TOP + heights.iter().sum::<f64>().max(NAME);
    let height = bottom + 44.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" \
         aria-labelledby=\"rehearsal-title rehearsal-text\">\n\
         <title id=\"rehearsal-title\">The locks of a rehearsal over time</title>\n\
         <desc id=\"rehearsal-text\">{}</desc>\n<style>{STYLE}</style>\n\
         <defs><pattern id=\"stripes\" width=\"6\" height=\"6\" patternUnits=\"userSpaceOnUse\" \
         patternTransform=\"rotate(45)\"><line class=\"stripe\" x1=\"0\" y1=\"0\" x2=\"0\" y2=\"6\"/>\
         </pattern></defs>\n<rect class=\"back\" width=\"{WIDTH}\" height=\"{height}\"/>\n",
        escaped(&description(report))
    );
    migrations(&mut svg, report, &scale, bottom);
    let mut y = TOP;
    for (lane, height) in lanes.iter().zip(heights) {
        draw(&mut svg, report, lane, &scale, y);
        y += height;
    }
    if lanes.is_empty() {
        let none = "no table lock that anything waits for";
        let _ = writeln!(svg, "<text x=\"{MARGIN}\" y=\"{}\">{none}</text>", TOP + BAR);
    }
    legend(&mut svg, bottom + 28.0);
    svg.push_str("</svg>\n");
    svg
}

/// The migrations, side by side, and the times below them.
fn migrations(svg: &mut String, report: &Report, scale: &Scale, bottom: f64) {
    for (index, migration) in report.migrations.iter().enumerate() {
        let until = migration.from + migration.took;
        let (x, width) = (scale.x(migration.from), scale.width(migration.from, until));
        let class = if index % 2 == 0 { "band" } else { "back" };
        let text = escaped(&title(migration));
        let _ = writeln!(
            svg,
            "<g><title>{text}</title><rect class=\"{class}\" x=\"{x:.1}\" y=\"0\" \
             width=\"{width:.1}\" height=\"{bottom}\"/>{}</g>",
            fitting(&migration.migration, x + 4.0, 20.0, width - 8.0, "name")
        );
    }
    for tick in scale.ticks() {
        let x = scale.x(tick);
        let anchor = if x > WIDTH - 80.0 { "end" } else { "start" };
        let _ = writeln!(
            svg,
            "<line class=\"line\" x1=\"{x:.1}\" y1=\"48\" x2=\"{x:.1}\" y2=\"{bottom}\"/>\
             <text class=\"faint\" x=\"{x:.1}\" y=\"42\" text-anchor=\"{anchor}\">{}</text>",
            seconds(tick)
        );
    }
}

fn draw(svg: &mut String, report: &Report, lane: &Lane<'_>, scale: &Scale, y: f64) {
    let table = escaped(&one_line(lane.table));
    let _ = writeln!(
        svg,
        "<line class=\"line\" x1=\"{MARGIN}\" y1=\"{y}\" x2=\"{}\" y2=\"{y}\"/>\
         <text class=\"name\" x=\"{MARGIN}\" y=\"{}\">{table}</text>",
        WIDTH - MARGIN,
        y + 16.0
    );
    let row_of = |lock: LockMode| {
        let above = lane.modes.iter().take_while(|mode| **mode != lock);
        above.fold(y + NAME, |y, _| y + BAR + GAP)
    };
    for (migration, span) in &lane.spans {
        let (x, width) = (scale.x(span.from), scale.width(span.from, span.until));
        let y = row_of(span.lock);
        let class = class_of(span);
        let _ = writeln!(
            svg,
            "<g><title>{}</title><rect class=\"{class}\" x=\"{x:.1}\" y=\"{y}\" width=\"{width:.1}\" \
             height=\"{BAR}\" rx=\"2\"/></g>",
            escaped(&span_text(migration, span))
        );
    }
    for rewrite in report.migrations.iter().flat_map(|migration| &migration.rewrites) {
        if rewrite.table == lane.table {
            let (x, width) = (scale.x(rewrite.from), scale.width(rewrite.from, rewrite.until));
            let _ = writeln!(
                svg,
                "<g><title>{table} is rewritten</title><rect class=\"rewrite\" x=\"{x:.1}\" y=\"{}\" \
                 width=\"{width:.1}\" height=\"{BAR}\"/></g>",
                y + NAME
            );
        }
    }
    for mode in &lane.modes {
        let spans = lane.spans.iter().filter(|(_, span)| span.lock == *mode);
        let new = spans.clone().filter(|(_, span)| !span.already_held);
        let held: Duration = new.map(|(_, span)| span.until.saturating_sub(span.from)).sum();
        let last = spans.clone().map(|(_, span)| span.until).max().unwrap_or_default();
        let text = match held.is_zero() {
            true => mode.to_string(),
            false => format!("{mode}, {}", seconds(held)),
        };
        let first = spans.clone().map(|(_, span)| span.from).min().unwrap_or_default();
        let (x, y) = (scale.x(last), row_of(*mode) + 12.0);
        let needed = text_width(&text) + 6.0;
        // Beside the bars, or else on them.
        let (x, anchor, class) = match scale.x(first) {
            _ if x + needed < WIDTH - MARGIN => (x + 6.0, "start", "faint"),
            first if first - needed > MARGIN => (first - 6.0, "end", "faint"),
            first => (first + 6.0, "start", "on"),
        };
        let _ = writeln!(
            svg,
            "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y}\" text-anchor=\"{anchor}\">{text}</text>"
        );
    }
}

fn legend(svg: &mut String, y: f64) {
    let mut x = MARGIN;
    for (class, text) in [
        ("all", "reads and writes wait"),
        ("writes", "writes wait"),
        ("rest", "schema changes and VACUUM wait"),
        ("rest held", "held since before"),
        ("rewrite", "rewritten"),
    ] {
        let _ = writeln!(
            svg,
            "<rect class=\"{class}\" x=\"{x:.1}\" y=\"{}\" width=\"14\" height=\"12\"/>\
             <text class=\"faint\" x=\"{:.1}\" y=\"{y}\">{text}</text>",
            y - 10.0,
            x + 20.0
        );
        x += 44.0 + text_width(text);
    }
}

/// A guess that is rather too wide.
fn text_width(text: &str) -> f64 {
    text.chars().fold(0.0, |width, _| width + 7.0)
}

/// A text, if it is not wider than its place.
fn fitting(text: &str, x: f64, y: f64, width: f64, class: &str) -> String {
    match text_width(text) <= width {
        true => format!("<text class=\"{class}\" x=\"{x:.1}\" y=\"{y}\">{}</text>", escaped(text)),
        false => String::new(),
    }
}

fn class_of(span: &LockSpan) -> &'static str {
    match (span.lock.queue(), span.already_held) {
        (Some(Queue::ReadsAndWrites), false) => "all",
        (Some(Queue::Writes), false) => "writes",
        (Some(Queue::Maintenance), false) => "rest",
        (Some(Queue::ReadsAndWrites), true) => "all held",
        (Some(Queue::Writes), true) => "writes held",
        (Some(Queue::Maintenance), true) => "rest held",
        (None, _) => "none",
    }
}

fn span_text(migration: &RehearsedMigration, span: &LockSpan) -> String {
    let held = seconds(span.until.saturating_sub(span.from));
    let at_most = if span.already_held { "at most " } else { "" };
    let queue = queue_text(span.lock.queue());
    let RehearsedMigration { migration, .. } = migration;
    format!("{}: {at_most}{} for {held} in {migration}; waiting: {queue}", span.table, span.lock)
}

/// What the picture shows, for those who cannot see it.
fn description(report: &Report) -> String {
    let spans = report.migrations.iter().flat_map(|migration| {
        let told = migration.spans.iter().filter(|span| span.lock.queue().is_some());
        told.map(move |span| span_text(migration, span))
    });
    let rewrites = report.migrations.iter().flat_map(|migration| &migration.rewrites);
    let rewrites = rewrites.map(|rewrite| format!("{} is rewritten", rewrite.table));
    spans.chain(rewrites).collect::<Vec<_>>().join(". ")
}

/// Text of XML and HTML.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in one_line(text).chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            // No character of XML.
            '\u{fffe}' | '\u{ffff}' => escaped.push(char::REPLACEMENT_CHARACTER),
            c => escaped.push(c),
        }
    }
    escaped
}
