//! Plots as SVG text, to stand in a page that needs nothing else.

use anyhow::{Result, anyhow};
use plotters::prelude::*;

/// Size of a plot in pixels.
const SIZE: (u32, u32) = (880, 280);
/// Colours of the lines, told apart also by those who see few.
const COLOURS: [RGBColor; 5] =
    [RGBColor(0, 90, 181), RGBColor(220, 50, 32), RGBColor(0, 130, 80), RGBColor(150, 90, 0), RGBColor(110, 60, 160)];

/// One line: its name and its points.
pub(super) type Line<'a> = (&'a str, Vec<(f64, f64)>);

/// Lines over a common axis; with `logarithmic`, the horizontal one.
pub(super) fn lines(title: &str, across: &str, up: &str, logarithmic: bool, lines: &[Line<'_>]) -> Result<String> {
    let points = || lines.iter().flat_map(|(_, points)| points.iter().copied());
    let finite = points().filter(|(x, y)| x.is_finite() && y.is_finite());
    let (mut left, mut right, mut top) = (f64::INFINITY, f64::NEG_INFINITY, 0.0_f64);
    for (x, y) in finite {
        (left, right, top) = (left.min(x), right.max(x), top.max(y));
    }
    if !left.is_finite() {
        return Ok(String::new());
    }
    if logarithmic {
        left = left.max(SMALLEST);
    }
    let (right, top) = (right.max(left * 1.01 + f64::MIN_POSITIVE), if top > 0.0 { top * 1.05 } else { 1.0 });
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        let failed = |error: &dyn std::fmt::Display| anyhow!("cannot draw {title}: {error}");
        let mut builder = ChartBuilder::on(&area);
        builder.caption(title, ("sans-serif", 16)).margin(8).x_label_area_size(36).y_label_area_size(64);
        macro_rules! draw {
            ($range:expr) => {{
                let mut chart = builder.build_cartesian_2d($range, 0.0..top).map_err(|error| failed(&error))?;
                let mut mesh = chart.configure_mesh();
                mesh.x_desc(across).y_desc(up).light_line_style(WHITE);
                mesh.draw().map_err(|error| failed(&error))?;
                for (place, (name, points)) in lines.iter().enumerate() {
                    let colour = COLOURS[place % COLOURS.len()];
                    let visible = points.iter().copied().filter(|(x, _)| *x >= left);
                    chart
                        .draw_series(LineSeries::new(visible, colour.stroke_width(2)))
                        .map_err(|error| failed(&error))?
                        .label(*name)
                        .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], colour.stroke_width(2)));
                }
                chart
                    .configure_series_labels()
                    .position(SeriesLabelPosition::LowerRight)
                    .background_style(WHITE.mix(0.8))
                    .border_style(BLACK.mix(0.2))
                    .draw()
                    .map_err(|error| failed(&error))?;
            }};
        }
        if logarithmic {
            draw!((left..right).log_scale());
        } else {
            draw!(left..right);
        }
        area.present().map_err(|error| failed(&error))?;
    }
    Ok(svg)
}

/// Bars of one thing, beside each other.
pub(super) struct Bar {
    pub(super) name: String,
    /// What each bar is, and how long.
    pub(super) parts: Vec<(&'static str, f64)>,
}

/// Height of one bar, of the gap below a group of them, and of the head, in pixels; and how much room the names take.
const BAR: f64 = 11.0;
const GAP: f64 = 8.0;
const HEAD: f64 = 40.0;
const NAMES: f64 = 260.0;

/// Groups of horizontal bars on one scale; plotters has none.
pub(super) fn bars(title: &str, groups: &[Bar]) -> String {
    let longest = groups.iter().flat_map(|group| &group.parts).map(|(_, length)| *length).fold(0.0, f64::max);
    if longest <= 0.0 {
        return String::new();
    }
    let width = f64::from(SIZE.0);
    let scale = (width - NAMES - 60.0) / longest;
    let height = HEAD + groups.iter().map(|group| group.parts.len() as f64 * BAR + GAP).sum::<f64>();
    let colour = |place: usize| {
        let RGBColor(red, green, blue) = COLOURS[place % COLOURS.len()];
        format!("rgb({red},{green},{blue})")
    };
    let mut svg = format!(
        "<svg width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" \
         xmlns=\"http://www.w3.org/2000/svg\" font-family=\"sans-serif\" font-size=\"11\">\
         <text x=\"{NAMES}\" y=\"14\" font-size=\"14\">{title}</text>"
    );
    for (place, (name, _)) in groups.first().map(|group| group.parts.as_slice()).unwrap_or_default().iter().enumerate()
    {
        let x = NAMES + 120.0 * place as f64;
        svg += &format!(
            "<rect x=\"{x}\" y=\"22\" width=\"10\" height=\"10\" fill=\"{}\"/><text x=\"{}\" y=\"31\">{name}</text>",
            colour(place),
            x + 14.0
        );
    }
    let mut y = HEAD;
    for group in groups {
        let middle = y + group.parts.len() as f64 * BAR / 2.0 + 4.0;
        svg += &format!("<text x=\"{}\" y=\"{middle}\" text-anchor=\"end\">{}</text>", NAMES - 8.0, group.name);
        for (place, (_, length)) in group.parts.iter().enumerate() {
            let long = length * scale;
            svg += &format!(
                "<rect x=\"{NAMES}\" y=\"{y}\" width=\"{long:.1}\" height=\"{}\" fill=\"{}\"/>\
                 <text x=\"{:.1}\" y=\"{}\" font-size=\"9\">{length:.3}</text>",
                BAR - 1.0,
                colour(place),
                NAMES + long + 4.0,
                y + BAR - 2.5
            );
            y += BAR;
        }
        y += GAP;
    }
    svg + "</svg>"
}

/// Left end of a logarithmic axis, in milliseconds: the microsecond that times are counted in.
const SMALLEST: f64 = 0.001;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plot_holds_its_title_and_a_path_for_each_line() {
        let svg = lines("a storm", "s", "sessions", false, &[("attached", vec![(0.0, 0.0), (1.0, 5.0)])]).unwrap();
        assert!(svg.starts_with("<svg") && svg.contains("a storm") && svg.contains("polyline"), "{svg}");
    }

    #[test]
    fn bars_stand_on_one_scale_with_their_names() {
        let group =
            |name: &str, length| Bar { name: name.to_owned(), parts: vec![("bound", 2.0), ("reached", length)] };
        let svg = bars("packets", &[group("64 B", 1.0), group("1400 B", 0.5)]);
        assert!(svg.contains("64 B") && svg.contains("1400 B") && svg.contains("reached"), "{svg}");
        assert_eq!(svg.matches("width=\"560.0\"").count(), 2, "{svg}");
        assert_eq!(svg.matches("width=\"280.0\"").count(), 1, "{svg}");
        assert_eq!(bars("nothing", &[]), "");
    }

    #[test]
    fn nothing_measured_is_no_plot() {
        assert_eq!(lines("t", "x", "y", true, &[("none", Vec::new())]).unwrap(), "");
    }

    #[test]
    fn a_point_at_zero_does_not_break_a_logarithmic_axis() {
        assert!(lines("t", "x", "y", true, &[("a", vec![(0.0, 0.1), (10.0, 1.0)])]).unwrap().contains("<svg"));
    }
}
