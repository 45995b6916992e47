//! The report's charts, each an SVG to stand in the page. Colours are names that the page's style gives meaning to, for
//! light and for dark.

#![forbid(unsafe_code)]

use std::error::Error;

use std::ops::Range;

use plotters::chart::{ChartContext, MeshStyle};
use plotters::coord::Shift;
use plotters::coord::cartesian::Cartesian2d;
use plotters::coord::ranged1d::{AsRangedCoord, DefaultFormatting, KeyPointHint, Ranged, ValueFormatter};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use hdrhistogram::Histogram;

/// Pixels of every chart's own measure; the page scales it.
const WIDTH: u32 = 960;
const HEIGHT: u32 = 300;
const LABEL_PIXELS: u32 = 72;
const TEXT_PIXELS: u32 = 15;
/// Colours as plotters writes them, and the classes they become.
const INK: RGBColor = RGBColor(1, 2, 3);
const GRID: RGBColor = RGBColor(4, 5, 6);
const LINES: [RGBColor; 4] = [RGBColor(7, 1, 1), RGBColor(7, 1, 2), RGBColor(7, 1, 3), RGBColor(7, 1, 4)];
/// Lines of latency stay within so many decades below the largest.
const DECADES_MAX: i32 = 6;

type Failed = Box<dyn Error>;
type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// One line: of which colour, and its points.
pub struct Line {
    pub colour: usize,
    pub points: Vec<(f64, f64)>,
}

/// Something over the run's seconds, from zero up.
pub fn over_time(unit: &str, seconds: f64, lines: &[Line]) -> Result<String, Failed> {
    let top = lines.iter().flat_map(|line| &line.points).map(|point| point.1).fold(0.0, f64::max);
    let top = if top > 0.0 { top * 1.1 } else { 1.0 };
    draw(|area| {
        let mut chart = chart(area, 0.0..seconds.max(1.0), 0.0..top)?;
        mesh(
            chart
                .configure_mesh()
                .x_labels(11)
                .y_labels(6)
                .x_desc("seconds since the end of the warm-up")
                .y_desc(unit)
                .x_label_formatter(&plain)
                .y_label_formatter(&scaled),
        )?;
        for line in lines {
            chart.draw_series(LineSeries::new(line.points.iter().copied(), stroke(line.colour)))?;
            chart.draw_series(dots(line))?;
        }
        Ok(())
    })
}

/// Latencies over the run's seconds, on a logarithmic axis.
pub fn latency_over_time(seconds: f64, lines: &[Line]) -> Result<String, Failed> {
    let (bottom, top) = decades(lines);
    draw(|area| {
        let mut chart = chart(area, 0.0..seconds.max(1.0), Exponents(bottom..top))?;
        mesh(
            chart
                .configure_mesh()
                .x_labels(11)
                .y_labels(8)
                .x_desc("seconds since the end of the warm-up")
                .y_desc("latency, ms")
                .x_label_formatter(&plain)
                .y_label_formatter(&power),
        )?;
        for line in lines {
            let points = line.points.iter().map(|(x, y)| (*x, y.max(f64::MIN_POSITIVE).log10()));
            let line = Line { colour: line.colour, points: points.collect() };
            chart.draw_series(LineSeries::new(line.points.iter().copied(), stroke(line.colour)))?;
            chart.draw_series(dots(&line))?;
        }
        Ok(())
    })
}

/// What share of all had which latency, the rarer the further to the right.
pub fn by_percentile(histograms: &[(usize, &Histogram<u64>)]) -> Result<String, Failed> {
    let lines: Vec<Line> =
        histograms.iter().map(|(colour, histogram)| Line { colour: *colour, points: curve(histogram) }).collect();
    let nines = lines.iter().filter_map(|line| line.points.last()).map(|point| point.0).fold(1.0, f64::max).ceil();
    let (bottom, top) = decades(&lines);
    draw(|area| {
        let x = Exponents(0..nines as i32);
        let mut chart = chart(area, x, Exponents(bottom..top))?;
        mesh(
            chart
                .configure_mesh()
                .x_labels(12)
                .y_labels(8)
                .x_desc("percentile")
                .y_desc("latency, ms")
                .x_label_formatter(&percentile)
                .y_label_formatter(&power),
        )?;
        for line in &lines {
            let points = line.points.iter().map(|(x, y)| (*x, y.log10()));
            chart.draw_series(LineSeries::new(points, stroke(line.colour)))?;
        }
        Ok(())
    })
}

/// Points of a histogram: nines of the percentile, and milliseconds.
fn curve(histogram: &Histogram<u64>) -> Vec<(f64, f64)> {
    const STEPS_A_NINE: u32 = 40;
    // The last record's share of all: beyond, the histogram knows nothing.
    let nines = (histogram.len().max(1) as f64).log10();
    let steps = (nines * f64::from(STEPS_A_NINE)).ceil() as u32;
    (0..=steps)
        .map(|step| (f64::from(step) / f64::from(STEPS_A_NINE)).min(nines))
        .map(|nines| {
            let quantile = 1.0 - 10f64.powf(-nines);
            (nines, histogram.value_at_quantile(quantile).max(1) as f64 / 1e6)
        })
        .collect()
}

/// The powers of ten that hold all points.
fn decades(lines: &[Line]) -> (i32, i32) {
    let values = || lines.iter().flat_map(|line| &line.points).map(|point| point.1).filter(|value| *value > 0.0);
    let top = values().fold(f64::MIN_POSITIVE, f64::max);
    let bottom = values().fold(top, f64::min);
    let top = if top > f64::MIN_POSITIVE { top.log10().ceil() as i32 } else { 0 };
    let bottom = if bottom > f64::MIN_POSITIVE { bottom.log10().floor() as i32 } else { -1 };
    (bottom.max(top - DECADES_MAX).min(top - 1), top)
}

/// An axis of exponents, marked at the whole ones.
struct Exponents(Range<i32>);

impl Ranged for Exponents {
    type FormatOption = DefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, limit: (i32, i32)) -> i32 {
        let share = (value - f64::from(self.0.start)) / f64::from(self.0.end - self.0.start);
        limit.0 + (share.clamp(0.0, 1.0) * f64::from(limit.1 - limit.0)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, _: Hint) -> Vec<f64> {
        (self.0.start..=self.0.end).map(f64::from).collect()
    }

    fn range(&self) -> Range<f64> {
        f64::from(self.0.start)..f64::from(self.0.end)
    }
}

fn draw(paint: impl FnOnce(&Area<'_>) -> Result<(), Failed>) -> Result<String, Failed> {
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, (WIDTH, HEIGHT)).into_drawing_area();
        paint(&area)?;
        area.present()?;
    }
    Ok(classed(&svg))
}

/// A chart's place for lines, with room for labels around it.
fn chart<'a, X: AsRangedCoord, Y: AsRangedCoord>(
    area: &Area<'a>,
    x: X,
    y: Y,
) -> Result<ChartContext<'a, SVGBackend<'a>, Cartesian2d<X::CoordDescType, Y::CoordDescType>>, Failed> {
    let mut builder = ChartBuilder::on(area);
    // The last label of an axis reaches beyond it.
    builder.margin(10).margin_right(32).x_label_area_size(44).y_label_area_size(LABEL_PIXELS);
    builder.build_cartesian_2d(x, y).map_err(|error| error.to_string().into())
}

fn mesh<'a, 'b, X, Y>(style: &mut MeshStyle<'a, 'b, X, Y, SVGBackend<'_>>) -> Result<(), Failed>
where
    X: Ranged<ValueType = f64> + ValueFormatter<f64>,
    Y: Ranged<ValueType = f64> + ValueFormatter<f64>,
{
    let text = ("sans-serif", TEXT_PIXELS).into_font().color(&INK);
    style
        .axis_style(INK.stroke_width(1))
        .bold_line_style(GRID.stroke_width(1))
        .light_line_style(TRANSPARENT)
        .label_style(text.clone())
        .axis_desc_style(text.pos(Pos::new(HPos::Center, VPos::Top)))
        .draw()
        .map_err(|error| error.to_string().into())
}

fn stroke(colour: usize) -> ShapeStyle {
    LINES[colour % LINES.len()].stroke_width(2)
}

/// A short run has few points: they are to be seen. A long one's would hide its line.
fn dots(line: &Line) -> Vec<Circle<(f64, f64), u32>> {
    const DOTS_MAX: usize = 60;
    let colour = LINES[line.colour % LINES.len()];
    let points = line.points.iter().filter(|_| line.points.len() <= DOTS_MAX);
    points.map(|point| Circle::new(*point, 3, colour.filled())).collect()
}

fn plain(value: &f64) -> String {
    format!("{value}")
}

fn scaled(value: &f64) -> String {
    let (scaled, unit) = match *value {
        value if value >= 1e9 => (value / 1e9, "G"),
        value if value >= 1e6 => (value / 1e6, "M"),
        value if value >= 1e3 => (value / 1e3, "k"),
        value => (value, ""),
    };
    let text = format!("{scaled:.2}");
    format!("{}{unit}", text.trim_end_matches('0').trim_end_matches('.'))
}

/// Ten to the power of it.
fn power(exponent: &f64) -> String {
    format!("{}", 10f64.powf(*exponent))
}

/// 1 is 90 %, 2 is 99 %, ...
fn percentile(nines: &f64) -> String {
    let places = (nines.round() as usize).saturating_sub(2);
    format!("{:.places$}%", (1.0 - 10f64.powf(-nines)) * 100.0)
}

/// Classes in place of colours, and a size that the page decides.
fn classed(svg: &str) -> String {
    let hex = |colour: RGBColor| format!("#{:02X}{:02X}{:02X}", colour.0, colour.1, colour.2);
    let names = ["line0", "line1", "line2", "line3"];
    let colours = LINES.into_iter().zip(names).chain([(INK, "ink"), (GRID, "grid")]);
    let mut svg = svg.replacen(&format!("<svg width=\"{WIDTH}\" height=\"{HEIGHT}\""), "<svg role=\"img\"", 1);
    for (colour, name) in colours {
        let hex = hex(colour);
        svg = svg.replace(&format!("stroke=\"{hex}\""), &format!("class=\"stroke-{name}\""));
        svg = svg.replace(&format!("fill=\"{hex}\""), &format!("class=\"fill-{name}\""));
    }
    svg
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::measure::new_histogram;

    #[test]
    fn the_curve_ends_where_the_histogram_does() {
        let mut histogram = new_histogram();
        (1..=1000).for_each(|ms| histogram.record(ms * 1_000_000).expect("in bounds"));
        let curve = curve(&histogram);
        let at = |nines: f64| curve.iter().find(|point| (point.0 - nines).abs() < 1e-9).expect("a point").1;
        assert!((at(1.0) / 900.0 - 1.0).abs() < 0.01 && (at(2.0) / 990.0 - 1.0).abs() < 0.01);
        let last = curve.last().expect("points");
        assert!((last.0 - 3.0).abs() < 1e-9 && (last.1 / 999.0 - 1.0).abs() < 0.01, "{last:?}");
    }

    #[test]
    fn labels_are_short() {
        assert_eq!([0.0, 950.0, 1500.0, 2e6].map(|value| scaled(&value)), ["0", "950", "1.5k", "2M"]);
        assert_eq!([0.0, 1.0, 2.0, 4.0].map(|value| percentile(&value)), ["0%", "90%", "99%", "99.99%"]);
        assert_eq!([-2.0, 0.0, 3.0].map(|value| power(&value)), ["0.01", "1", "1000"]);
    }

    #[test]
    fn charts_of_nothing_and_of_zeros_are_charts() {
        let zero = || Line { colour: 0, points: vec![(0.5, 0.0)] };
        for svg in [
            over_time("x", 0.0, &[]),
            over_time("x", 1.0, &[zero()]),
            latency_over_time(1.0, &[zero()]),
            latency_over_time(0.0, &[]),
            by_percentile(&[(0, &new_histogram())]),
        ] {
            let svg = svg.expect("drawn");
            assert!(svg.starts_with("<svg") && !svg.contains("NaN") && !svg.contains("inf"), "{svg}");
            assert!(!svg.contains('#'), "every colour has a class: {svg}");
        }
    }
}
