//! The report's plots, drawn by plotters as SVG. Colours are names: the page's style sheet gives
//! them their values, light or dark.
#![forbid(unsafe_code)]

use super::words::ms;
use crate::journal::{Obtained, Source};
use anyhow::{Result, anyhow};
use plotters::backend::SVGBackend;
use plotters::chart::ChartBuilder;
use plotters::coord::Shift;
use plotters::drawing::{DrawingArea, IntoDrawingArea};
use plotters::element::{PathElement, Rectangle, Text};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{Color, IntoFont, RGBColor, ShapeStyle, TextStyle};

/// From the origin.
pub(super) const ORIGIN: RGBColor = RGBColor(0xc2, 0x41, 0x0c);
/// From other helpers.
pub(super) const TREE: RGBColor = RGBColor(0x25, 0x63, 0xeb);
/// From this node.
pub(super) const LOCAL: RGBColor = RGBColor(0x15, 0x80, 0x3d);
/// Text.
pub(super) const TEXT: RGBColor = RGBColor(0x11, 0x18, 0x27);
/// Lines that help the eye.
pub(super) const GRID: RGBColor = RGBColor(0xd1, 0xd5, 0xdb);
/// What is wrong.
pub(super) const WRONG: RGBColor = RGBColor(0xb9, 0x1c, 0x1c);

/// Family of all text in plots; the style sheet replaces it.
const FONT: &str = "sans-serif";

/// A place to draw on, in pixels.
pub(super) type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// How wide a plot is: for a screen, or for a telephone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Width {
    /// For a screen.
    Wide,
    /// For a telephone.
    Narrow,
}

impl Width {
    /// In pixels.
    pub(super) fn pixels(self) -> u32 {
        match self {
            Width::Wide => 960,
            Width::Narrow => 360,
        }
    }

    /// Text of a readable size.
    pub(super) fn font(self) -> i32 {
        match self {
            Width::Wide => 17,
            Width::Narrow => 15,
        }
    }
}

/// A plot in both widths, each an SVG element.
#[derive(Clone, Debug)]
pub(super) struct Plot {
    pub(super) wide: String,
    pub(super) narrow: String,
}

/// Draws a plot twice; `what` is what it shows, for those who do not see it.
pub(super) fn plot(
    what: &str,
    height: impl Fn(Width) -> u32,
    draw: impl Fn(&Area<'_>, Width) -> Result<()>,
) -> Result<Plot> {
    let one = |width: Width| -> Result<String> {
        let size = (width.pixels(), height(width));
        let mut text = String::new();
        {
            let area = SVGBackend::with_string(&mut text, size).into_drawing_area();
            draw(&area, width)?;
            area.present().map_err(|error| anyhow!("{error}"))?;
        }
        Ok(embed(&text, what, size))
    };
    Ok(Plot {
        wide: one(Width::Wide)?,
        narrow: one(Width::Narrow)?,
    })
}

/// The SVG as an element of the page, which gives it its size.
fn embed(svg: &str, what: &str, (width, height): (u32, u32)) -> String {
    let inside = svg.split_once('>').map_or("", |(_, rest)| rest);
    let what = what.replace('&', "&amp;").replace('"', "&quot;");
    format!(
        "<svg class=\"plot\" role=\"img\" aria-label=\"{what}\" viewBox=\"0 0 {width} {height}\" \
         xmlns=\"http://www.w3.org/2000/svg\">{inside}"
    )
}

/// Text in a colour, anchored.
pub(super) fn text_style(size: i32, anchor: Pos) -> TextStyle<'static> {
    (FONT, size).into_font().color(&TEXT).pos(anchor)
}

/// One bar of the time line.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Bar {
    pub(super) origin: u64,
    pub(super) tree: u64,
    pub(super) local: u64,
}

impl Bar {
    /// All that came.
    pub(super) fn total(self) -> u64 {
        self.origin + self.tree + self.local
    }

    /// Adds what came at another time.
    pub(super) fn add(&mut self, other: &Bar) {
        self.origin += other.origin;
        self.tree += other.tree;
        self.local += other.local;
    }
}

/// When things came: bars of `step_ms` milliseconds from `from_ms` on, and marks with names.
pub(super) fn timeline(
    from_ms: f64,
    step_ms: f64,
    bars: &[Bar],
    marks: &[(f64, String)],
) -> Result<Plot> {
    let end = from_ms + step_ms * bars.len() as f64;
    let first = marks.iter().map(|(at, _)| *at).fold(from_ms, f64::min);
    let most = bars.iter().map(|bar| bar.total()).max().unwrap_or(0).max(1);
    plot(
        "Objects that came, over time; the table below has the numbers",
        |_| 280,
        |area, width| {
            let size = width.font();
            let mut chart = ChartBuilder::on(area)
                .margin(8)
                .margin_top(24)
                .margin_right(32)
                .x_label_area_size(44)
                .y_label_area_size(if width == Width::Wide { 64 } else { 44 })
                .build_cartesian_2d(first..end, 0f64..most as f64 * 1.05)?;
            chart
                .configure_mesh()
                .disable_x_mesh()
                .light_line_style(GRID.mix(0.0))
                .bold_line_style(GRID)
                .axis_style(GRID)
                .label_style((FONT, size).into_font().color(&TEXT))
                .x_labels(if width == Width::Wide { 10 } else { 4 })
                .y_labels(5)
                .x_label_formatter(&|at| ms(*at))
                .y_label_formatter(&|count| format!("{count:.0}"))
                .x_desc("time since the first helper's start")
                .y_desc(if width == Width::Wide { "objects" } else { "" })
                .draw()?;
            for (number, bar) in bars.iter().enumerate() {
                let left = from_ms + step_ms * number as f64;
                let mut below = 0.0;
                for (count, colour) in [(bar.origin, ORIGIN), (bar.tree, TREE), (bar.local, LOCAL)]
                {
                    let above = below + count as f64;
                    if count > 0 {
                        let corners = [(left, below), (left + step_ms * 0.92, above)];
                        chart.draw_series([Rectangle::new(corners, colour.filled())])?;
                    }
                    below = above;
                }
            }
            for (number, (at, name)) in marks.iter().enumerate() {
                let line = vec![(*at, 0.0), (*at, most as f64 * 1.05)];
                chart.draw_series([PathElement::new(line, TEXT.stroke_width(1))])?;
                let place = chart.backend_coord(&(*at, most as f64 * 1.05));
                let style = text_style(size, Pos::new(HPos::Left, VPos::Bottom));
                let down = number as i32 * (size + 2);
                area.draw(&Text::new(
                    name.clone(),
                    (place.0 + 4, place.1 + down),
                    style,
                ))?;
            }
            Ok(())
        },
    )
}

/// One row of the waterfall.
#[derive(Clone, Debug)]
pub(super) struct Fall {
    pub(super) obtained: Obtained,
    /// The node where it took so long.
    pub(super) host: String,
    /// When it was asked for, in milliseconds since the first helper's start.
    pub(super) at_ms: f64,
}

/// The slowest paths, as bars from the question to the arrival.
pub(super) fn waterfall(falls: &[Fall]) -> Result<Plot> {
    const ROW: i32 = 22;
    const FOOT: i32 = 40;
    let first = falls.iter().map(|fall| fall.at_ms).fold(f64::MAX, f64::min);
    let last = falls
        .iter()
        .map(|fall| fall.at_ms + fall.obtained.took_ms)
        .fold(first, f64::max);
    let span = (last - first).max(1.0);
    let several = falls.windows(2).any(|pair| pair[0].host != pair[1].host);
    let height = |_| (falls.len() as i32 * ROW + FOOT) as u32;
    plot(
        "The slowest objects, each from the question to its arrival; the table below has the numbers",
        height,
        |area, width| {
            let size = width.font();
            let names = if width == Width::Wide { 330 } else { 130 };
            let letters = if width == Width::Wide { 40 } else { 17 };
            let room = width.pixels() as i32 - names - 16;
            let place = |at: f64| names + (f64::from(room) * (at - first) / span) as i32;
            let bottom = falls.len() as i32 * ROW;
            for step in 0..=4 {
                let at = first + span * f64::from(step) / 4.0;
                if width == Width::Narrow && step % 2 == 1 {
                    continue;
                }
                let line = vec![(place(at), 0), (place(at), bottom)];
                area.draw(&PathElement::new(line, GRID.stroke_width(1)))?;
                let anchor = match step {
                    0 => HPos::Left,
                    4 => HPos::Right,
                    _ => HPos::Center,
                };
                let style = text_style(size, Pos::new(anchor, VPos::Top));
                area.draw(&Text::new(ms(at), (place(at), bottom + 8), style))?;
            }
            for (row, fall) in falls.iter().enumerate() {
                let top = row as i32 * ROW;
                let style = text_style(size, Pos::new(HPos::Right, VPos::Center));
                let name = shorten(&fall.obtained.path, letters);
                area.draw(&Text::new(name, (names - 8, top + ROW / 2), style))?;
                let left = place(fall.at_ms);
                let right = place(fall.at_ms + fall.obtained.took_ms).max(left + 2);
                let colour = match fall.obtained.from {
                    Source::Origin => ORIGIN,
                    Source::Tree => TREE,
                };
                let corners = [(left, top + 4), (right, top + ROW - 4)];
                area.draw(&Rectangle::new(corners, colour.filled()))?;
                let took = ms(fall.obtained.took_ms);
                // A telephone has no room for it; the table has it too.
                let took = match several && width == Width::Wide {
                    true => format!("{took}, {}", fall.host),
                    false => took,
                };
                let letters = took.chars().count() as i32 * size * 6 / 10 + 8;
                // Behind the bar, or before it where there is no room.
                let (x, anchor) = if right + letters < width.pixels() as i32 {
                    (right + 5, HPos::Left)
                } else {
                    (left - 5, HPos::Right)
                };
                let style = text_style(size - 1, Pos::new(anchor, VPos::Center));
                area.draw(&Text::new(took, (x, top + ROW / 2), style))?;
            }
            Ok(())
        },
    )
}

/// How long programs waited for the helper: counts of waits of 2^i to 2^(i+1) microseconds.
pub(super) fn waits(counts: &[u64]) -> Result<Plot> {
    let first = counts.iter().position(|&count| count > 0).unwrap_or(0);
    let last = counts.iter().rposition(|&count| count > 0).unwrap_or(0);
    let shown = &counts[first.min(counts.len())..(last + 1).min(counts.len())];
    let most = shown.iter().max().copied().unwrap_or(0).max(1);
    plot(
        "How many waits for the helper took how long",
        |_| 220,
        |area, width| {
            let size = width.font();
            let (left, bottom, top) = (56, 220 - 40, 24);
            let room = width.pixels() as i32 - left - 16;
            let step = (room / shown.len().max(1) as i32).min(120);
            let baseline = vec![(left, bottom), (left + step * shown.len() as i32, bottom)];
            area.draw(&PathElement::new(baseline, GRID.stroke_width(1)))?;
            for (number, &count) in shown.iter().enumerate() {
                let x = left + step * number as i32;
                let tall = (f64::from(bottom - top) * count as f64 / most as f64) as i32;
                let corners = [(x + 2, bottom - tall), (x + step - 2, bottom)];
                area.draw(&Rectangle::new(corners, LOCAL.filled()))?;
                let middle = x + step / 2;
                let over = text_style(size, Pos::new(HPos::Center, VPos::Bottom));
                if count > 0 && step > 26 {
                    area.draw(&Text::new(
                        count.to_string(),
                        (middle, bottom - tall - 2),
                        over,
                    ))?;
                }
                if step > 52 || number % (52 / step.max(1) + 1) as usize == 0 {
                    let under = text_style(size, Pos::new(HPos::Center, VPos::Top));
                    let from = ms((1u64 << (first + number).min(62)) as f64 / 1e3);
                    area.draw(&Text::new(from, (middle, bottom + 8), under))?;
                }
            }
            Ok(())
        },
    )
}

/// A path in up to `letters` letters: its name, and of its directories as many as there is room for.
fn shorten(path: &str, letters: usize) -> String {
    let count = |text: &str| text.chars().count();
    if count(path) <= letters {
        return path.to_owned();
    }
    let mut parts = path.rsplit('/');
    let mut text = parts.next().unwrap_or_default().to_owned();
    if count(&text) > letters {
        let begin: String = text.chars().take(letters.saturating_sub(1)).collect();
        return format!("{begin}…");
    }
    for part in parts {
        if count(&text) + count(part) + 3 > letters {
            break;
        }
        text = format!("{part}/{text}");
    }
    match count(&text) + 2 <= letters {
        true => format!("…/{text}"),
        false => text,
    }
}

/// A filled shape.
pub(super) fn filled(colour: RGBColor) -> ShapeStyle {
    colour.filled()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_paths_keep_their_names() {
        assert_eq!(shorten("/lus/a.py", 20), "/lus/a.py");
        assert_eq!(shorten("/lus/project/env/module.py", 18), "…/env/module.py");
        assert_eq!(
            shorten("/lus/very_long_name.cpython-311.so", 10),
            "very_long…"
        );
    }

    #[test]
    fn plots_have_no_size_of_their_own_and_say_what_they_show() {
        let bars = [
            Bar {
                origin: 3,
                tree: 2,
                local: 1,
            },
            Bar::default(),
        ];
        let plot = timeline(0.0, 10.0, &bars, &[(5.0, "ready".to_owned())]).unwrap();
        for svg in [plot.wide, plot.narrow] {
            assert!(
                svg.starts_with("<svg class=\"plot\" role=\"img\" aria-label="),
                "{svg}"
            );
            assert!(svg.trim_end().ends_with("</svg>"), "{svg}");
            assert!(svg.contains("#C2410C") && svg.contains("ready"), "{svg}");
        }
    }
}
