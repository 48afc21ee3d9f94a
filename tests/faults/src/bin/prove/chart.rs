//! How fast it went, as a picture, with the faults in it.

use std::{collections::BTreeMap, error::Error};

use plotters::{coord::Shift, prelude::*};

use crate::{
    fault::{Fault, Hits},
    run::Run,
    timeline::Sample,
};

type Area<'p> = DrawingArea<SVGBackend<'p>, Shift>;

/// An SVG of messages each second over time. A fault is a band from its beginning until messages got
/// through again, with a letter that the legend below explains.
pub(crate) fn svg(run: &Run) -> Result<String, Box<dyn Error>> {
    let kinds = kinds(run);
    let legend = MARGIN + (kinds.len().div_ceil(COLUMNS) as u32 + 1) * LINE;
    let mut picture = String::new();
    {
        let size = (WIDTH, HEIGHT + legend);
        let area = SVGBackend::with_string(&mut picture, size).into_drawing_area();
        area.fill(&WHITE)?;
        let (upper, lower) = area.split_vertically(HEIGHT);
        rates(run, &kinds, &upper)?;
        explain(&kinds, &lower)?;
        area.present()?;
    }
    Ok(picture)
}

/// A kind of fault in the picture.
struct Kind {
    letter: char,
    times: usize,
}

/// Those that happened, in the order of their list.
fn kinds(run: &Run) -> Vec<(Fault, Kind)> {
    let mut times: BTreeMap<Fault, usize> = BTreeMap::new();
    for mark in &run.marks {
        *times.entry(mark.fault).or_default() += 1;
    }
    let letters = ('A'..='Z').chain('a'..='z');
    times
        .into_iter()
        .zip(letters)
        .map(|((fault, times), letter)| (fault, Kind { letter, times }))
        .collect()
}

fn rates(run: &Run, kinds: &[(Fault, Kind)], area: &Area<'_>) -> Result<(), Box<dyn Error>> {
    let end = run.took.as_secs_f64().max(1.0);
    let each = run.samples.iter().flat_map(|sample| [sample.confirmed(), sample.handled()]);
    let top = each.fold(1.0, f64::max) * 1.05;
    let confirmed = run.report.confirmed;
    let title = format!(
        "{} ({}): {} messages, {confirmed} confirmed, {} lost, {} faults",
        run.target,
        run.peer,
        run.report.attempted,
        run.report.lost,
        run.marks.len()
    );
    let mut chart = ChartBuilder::on(area)
        .caption(title, ("sans-serif", 18))
        .margin(MARGIN)
        // For the letters.
        .margin_right(3 * MARGIN)
        .x_label_area_size(45)
        .y_label_area_size(75)
        .build_cartesian_2d(0.0..end, 0.0..top * (1.0 + ROWS as f64 * ROW))?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(WHITE)
        .label_style(("sans-serif", 13))
        .axis_desc_style(("sans-serif", 14))
        .x_desc("time since the start (seconds)")
        .y_desc("messages per second")
        .x_labels(20)
        .x_label_formatter(&|seconds| format!("{seconds:.0}"))
        .y_label_formatter(&|rate| format!("{rate:.0}"))
        .draw()?;
    let narrowest = end / f64::from(WIDTH);
    let mut rows = [f64::MIN; ROWS];
    for mark in &run.marks {
        let Some((_, kind)) = kinds.iter().find(|(fault, _)| *fault == mark.fault) else {
            continue;
        };
        let (from, to) = (mark.from.as_secs_f64(), mark.to.as_secs_f64());
        let to = to.max(from + 2.0 * narrowest);
        let colour = colour(mark.fault);
        chart.draw_series([Rectangle::new([(from, 0.0), (to, top)], colour.mix(0.25).filled())])?;
        // Letters that are close to each other go below each other.
        let room = 14.0 * narrowest;
        let row = rows.iter().position(|last| from - last > room).unwrap_or_default();
        if let Some(last) = rows.get_mut(row) {
            *last = from;
        }
        let height = top * (1.0 + (row + 1) as f64 * ROW);
        let style = ("sans-serif", 13).into_font().style(FontStyle::Bold).color(&colour);
        chart.draw_series([Text::new(kind.letter.to_string(), (from, height), style)])?;
    }
    for (_, colour, rate) in CURVES {
        let points = run.samples.iter().map(|sample| (sample.at.as_secs_f64(), rate(sample)));
        chart.draw_series(LineSeries::new(points, colour.stroke_width(1)))?;
    }
    Ok(())
}

/// Each with its name, its colour and what it shows.
type Curve = (&'static str, RGBColor, fn(&Sample) -> f64);

const CURVES: [Curve; 2] =
    [("confirmed", BLUE, Sample::confirmed), ("handled", RGBColor(0, 130, 60), Sample::handled)];

/// The legend: what each letter means, how often it happened, and which curve is which.
fn explain(kinds: &[(Fault, Kind)], area: &Area<'_>) -> Result<(), Box<dyn Error>> {
    for (at, (fault, Kind { letter, times })) in kinds.iter().enumerate() {
        let column = (WIDTH - 9 * MARGIN) as usize / COLUMNS;
        let x = i32::try_from(8 * MARGIN as usize + at % COLUMNS * column)?;
        let y = i32::try_from(at / COLUMNS * LINE as usize)?;
        let colour = colour(*fault);
        let bold = ("sans-serif", 13).into_font().style(FontStyle::Bold).color(&colour);
        area.draw(&Text::new(letter.to_string(), (x, y), bold))?;
        let text = format!("{fault} ×{times}");
        area.draw(&Text::new(text, (x + 18, y), ("sans-serif", 13).into_font().color(&BLACK)))?;
    }
    let y = i32::try_from(kinds.len().div_ceil(COLUMNS) * LINE as usize)?;
    for (x, (name, colour, _)) in (8 * MARGIN as i32..).step_by(150).zip(CURVES) {
        let line = [(x, y + 7), (x + 30, y + 7)];
        area.draw(&PathElement::new(line, colour.stroke_width(2)))?;
        area.draw(&Text::new(name, (x + 38, y), ("sans-serif", 13).into_font().color(&BLACK)))?;
    }
    Ok(())
}

fn colour(fault: Fault) -> RGBColor {
    match fault.hits() {
        Hits::Broker => RGBColor(200, 0, 0),
        Hits::Way => RGBColor(205, 110, 0),
        Hits::Message => RGBColor(140, 0, 160),
        Hits::Program => RGBColor(0, 110, 120),
    }
}

const WIDTH: u32 = 1400;
const HEIGHT: u32 = 460;
const MARGIN: u32 = 10;
const COLUMNS: usize = 4;
/// The height of a line of the legend.
const LINE: u32 = 20;
/// Of letters above the curves.
const ROWS: usize = 4;
/// The height of such a row, as a part of the highest rate.
const ROW: f64 = 0.05;
