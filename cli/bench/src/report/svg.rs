//! A timeline as SVG: one bar a lane, cut where something was reached. Colours suit a light and a
//! dark page.

use std::io;

use super::xml::Markup;

/// Width of a picture, and of the part that shows time, in pixels.
const WIDTH: f64 = 960.0;
const LEFT: f64 = 190.0;
const RIGHT: f64 = 90.0;

/// Heights in pixels: of a lane, of its bar, and of the scale below the lanes.
const LANE: f64 = 46.0;
const BAR: f64 = 24.0;
const SCALE: f64 = 26.0;

/// Least width of a bar's part: what happened is drawn, however short it was.
const LEAST: f64 = 1.5;

/// Pixels that a character of a label takes at most.
const CHARACTER: f64 = 6.6;

/// How many colours there are.
const COLOURS: usize = 8;

/// Style of every picture; also for the page that holds several.
pub const STYLE: &str = "\
svg text { font: 12px system-ui, sans-serif; fill: #1b1f24; } svg .on { fill: #fff; } \
svg .axis { stroke: #8b949e; stroke-width: 1; } \
.c0 { fill: #0550ae; background: #0550ae; } .c1 { fill: #8250df; background: #8250df; } \
.c2 { fill: #116329; background: #116329; } .c3 { fill: #953800; background: #953800; } \
.c4 { fill: #a40e26; background: #a40e26; } .c5 { fill: #1b7c83; background: #1b7c83; } \
.c6 { fill: #57606a; background: #57606a; } .c7 { fill: #6e5600; background: #6e5600; } \
@media (prefers-color-scheme: dark) { svg text { fill: #e6edf3; } svg .on { fill: #fff; } }";

/// A bar.
#[derive(Debug, Clone, PartialEq)]
pub struct Lane {
    /// What is written before it.
    pub name: String,
    /// Its parts in order of time.
    pub spans: Vec<Span>,
}

/// A part of a bar.
#[derive(Debug, Clone, PartialEq)]
pub struct Span {
    /// What it is.
    pub name: String,
    /// Which of the colours it has; the same thing has the same one in every lane.
    pub colour: usize,
    /// Its begin in milliseconds.
    pub start: f64,
    /// Its end.
    pub end: f64,
}

/// A picture of its own: `lanes` on one scale, which ends at `end` milliseconds.
///
/// # Errors
/// Never in fact: it is written to memory.
pub fn picture(title: &str, lanes: &[Lane], end: f64) -> io::Result<String> {
    let mut markup = Markup::new();
    draw(&mut markup, title, lanes, end)?;
    Ok(markup.finish())
}

/// Draws `lanes` into a document.
pub(super) fn draw(markup: &mut Markup, title: &str, lanes: &[Lane], end: f64) -> io::Result<()> {
    let height = LANE * lanes.len() as f64 + SCALE;
    markup.open(
        "svg",
        &[
            ("xmlns", "http://www.w3.org/2000/svg"),
            ("viewBox", &format!("0 0 {WIDTH} {height}")),
            ("role", "img"),
            ("style", &format!("width:100%;max-width:{WIDTH}px")),
        ],
    )?;
    markup.leaf("title", &[], title)?;
    markup.leaf("style", &[], STYLE)?;
    for (index, lane) in lanes.iter().enumerate() {
        draw_lane(markup, lane, LANE * index as f64, end)?;
    }
    scale(markup, LANE * lanes.len() as f64, end)?;
    markup.close("svg")
}

fn draw_lane(markup: &mut Markup, lane: &Lane, top: f64, end: f64) -> io::Result<()> {
    let middle = top + LANE / 2.0;
    let baseline = &number(middle + 4.0);
    let before = &number(LEFT - 8.0);
    markup.leaf(
        "text",
        &[("x", before), ("y", baseline), ("text-anchor", "end")],
        &lane.name,
    )?;
    for span in &lane.spans {
        let from = place(span.start, end);
        let width = (place(span.end, end) - from).max(LEAST);
        let class = format!("c{}", span.colour % COLOURS);
        let took = format!(
            "{}: {:.1} ms, until {:.1} ms",
            span.name,
            span.end - span.start,
            span.end
        );
        markup.open(
            "rect",
            &[
                ("class", &class),
                ("data-name", &span.name),
                ("x", &number(from)),
                ("y", &number(middle - BAR / 2.0)),
                ("width", &number(width)),
                ("height", &number(BAR)),
            ],
        )?;
        markup.leaf("title", &[], &took)?;
        markup.close("rect")?;
        if width > span.name.chars().count() as f64 * CHARACTER {
            let centre = &number(from + width / 2.0);
            let place = [
                ("class", "on"),
                ("x", centre),
                ("y", baseline),
                ("text-anchor", "middle"),
            ];
            markup.leaf("text", &place, &span.name)?;
        }
    }
    let last = lane.spans.iter().map(|span| span.end).fold(0.0, f64::max);
    let after = &number(place(last, end) + 6.0);
    markup.leaf(
        "text",
        &[("x", after), ("y", baseline)],
        &format!("{last:.1} ms"),
    )
}

fn scale(markup: &mut Markup, top: f64, end: f64) -> io::Result<()> {
    let (left, right) = (number(place(0.0, end)), number(place(end, end)));
    let y = &number(top + 2.0);
    markup.empty(
        "line",
        &[
            ("class", "axis"),
            ("x1", &left),
            ("x2", &right),
            ("y1", y),
            ("y2", y),
        ],
    )?;
    let step = step(end);
    let mut at = 0.0;
    while at <= end {
        let x = &number(place(at, end));
        let (tick, text) = (number(top + 7.0), number(top + 20.0));
        markup.empty(
            "line",
            &[
                ("class", "axis"),
                ("x1", x),
                ("x2", x),
                ("y1", y),
                ("y2", &tick),
            ],
        )?;
        markup.leaf(
            "text",
            &[("x", x), ("y", &text), ("text-anchor", "middle")],
            &format!("{at} ms"),
        )?;
        at += step;
    }
    Ok(())
}

/// A round distance between marks of the scale, so that there are three to seven of them.
fn step(end: f64) -> f64 {
    let power = 10_f64.powf((end.max(f64::MIN_POSITIVE) / 3.0).log10().floor());
    let fitting = [5.0, 2.0, 1.0].map(|digit| digit * power);
    let fitting = fitting.into_iter().find(|step| end / step >= 3.0);
    fitting.unwrap_or(power)
}

fn place(at: f64, end: f64) -> f64 {
    LEFT + at / end.max(f64::MIN_POSITIVE) * (WIDTH - LEFT - RIGHT)
}

fn number(value: f64) -> String {
    format!("{value:.1}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scale_has_three_to_seven_round_marks() {
        for (end, expected) in [
            (10.0, 2.0),
            (100.0, 20.0),
            (299.0, 50.0),
            (700.0, 200.0),
            (1.0, 0.2),
        ] {
            assert!((step(end) - expected).abs() < 1e-9, "{end}: {}", step(end));
        }
    }

    #[test]
    fn short_part_is_drawn_and_names_are_escaped() {
        let span = |name: &str, start, end| Span {
            name: name.to_owned(),
            colour: 9,
            start,
            end,
        };
        let lane = Lane {
            name: "a<b & \"c\"".to_owned(),
            spans: vec![span("short <one>", 0.0, 0.001), span("long", 0.001, 900.0)],
        };
        let svg = picture("t", &[lane], 900.0).unwrap();
        let document = roxmltree::Document::parse(&svg).unwrap();
        let rects: Vec<_> = document
            .descendants()
            .filter(|node| node.has_tag_name(("http://www.w3.org/2000/svg", "rect")))
            .collect();
        assert_eq!(rects.len(), 2);
        assert_eq!(rects[0].attribute("data-name"), Some("short <one>"));
        assert!(rects[0].attribute("width").unwrap().parse::<f64>().unwrap() >= LEAST);
        assert_eq!(rects[0].attribute("class"), Some("c1"));
    }
}
