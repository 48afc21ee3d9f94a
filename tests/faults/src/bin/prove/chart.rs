//! How fast it went, as a picture, with the faults in it.

use std::error::Error;

use plotters::prelude::*;

use crate::{conduct::Run, timeline::Sample};

/// An SVG of messages each second over time. A fault is a band from its beginning until messages got
/// through again.
pub(crate) fn svg(run: &Run) -> Result<String, Box<dyn Error>> {
    let mut picture = String::new();
    {
        let area = SVGBackend::with_string(&mut picture, SIZE).into_drawing_area();
        area.fill(&WHITE)?;
        let end = run.took.as_secs_f64().max(1.0);
        let rates = run.samples.iter().flat_map(|sample| [sample.confirmed(), sample.handled()]);
        let top = rates.fold(1.0, f64::max) * 1.05;
        let mut chart = ChartBuilder::on(&area)
            .margin(10)
            .x_label_area_size(35)
            .y_label_area_size(60)
            .build_cartesian_2d(0.0..end, 0.0..top)?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .light_line_style(WHITE)
            .x_desc("seconds")
            .y_desc("messages a second")
            .draw()?;
        for mark in &run.marks {
            let (from, to) = (mark.from.as_secs_f64(), mark.to.as_secs_f64());
            chart
                .draw_series([Rectangle::new([(from, 0.0), (to, top)], RED.mix(0.15).filled())])?;
            let style =
                ("sans-serif", 9).into_font().transform(FontTransform::Rotate90).color(&BLACK);
            chart.draw_series([Text::new(mark.name.clone(), (from, top), style)])?;
        }
        for (name, colour, rate) in [
            ("confirmed", BLUE, Sample::confirmed as fn(&Sample) -> f64),
            ("handled", GREEN, Sample::handled),
        ] {
            let points = run.samples.iter().map(|sample| (sample.at.as_secs_f64(), rate(sample)));
            chart
                .draw_series(LineSeries::new(points, colour.stroke_width(1)))?
                .label(name)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 15, y)], colour));
        }
        chart
            .configure_series_labels()
            .background_style(WHITE.mix(0.8))
            .border_style(BLACK.mix(0.3))
            .draw()?;
        area.present()?;
    }
    Ok(picture)
}

const SIZE: (u32, u32) = (1400, 420);
