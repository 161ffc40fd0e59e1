//! The ratios as bars, beside their goals.

use std::fmt::Write as _;

use super::report::Line;

const WIDTH: f64 = 1060.0;
const LABELS: f64 = 560.0;
const ROW: f64 = 26.0;
const TOP: f64 = 44.0;
/// Bars end here, as multiples of the goal.
const MOST: f64 = 2.0;

/// A picture of all lines that have a goal. All bars have one scale: how far the goal is reached.
pub fn svg(lines: &[Line]) -> String {
    let rows: Vec<_> = lines.iter().filter_map(|line| Some((line, line.goal?))).collect();
    let height = TOP + rows.len() as f64 * ROW + 16.0;
    let per_goal = (WIDTH - LABELS - 130.0) / MOST;
    let goal = LABELS + per_goal;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
         font-family=\"sans-serif\" font-size=\"13\">\n\
         <title>Ratios beside their goals: a bar that reaches the line has met its goal</title>\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n\
         <text x=\"{goal}\" y=\"22\" text-anchor=\"middle\" fill=\"#333333\">goal</text>\n"
    );
    for (index, (line, of)) in rows.iter().enumerate() {
        let reached = of.reached(line.ratio);
        let y = TOP + index as f64 * ROW;
        let (width, text) = (reached.clamp(0.0, MOST) * per_goal, y + 14.0);
        let colour = if reached >= 1.0 { "#2e7d4f" } else { "#c0562b" };
        let label = escaped(&format!("{} / {}", line.what.replace('`', ""), line.against));
        let ratio = escaped(&format!("{:.2} ({})", line.ratio, of.text()));
        let end = LABELS + width + 6.0;
        push(
            &mut svg,
            format_args!(
                "<text x=\"{}\" y=\"{text}\" text-anchor=\"end\" fill=\"#333333\">{label}</text>\n\
             <rect x=\"{LABELS}\" y=\"{y}\" width=\"{width:.1}\" height=\"18\" fill=\"{colour}\"/>\n\
             <text x=\"{end:.1}\" y=\"{text}\" fill=\"#333333\">{ratio}</text>\n",
                LABELS - 8.0
            ),
        );
    }
    let bottom = height - 12.0;
    push(
        &mut svg,
        format_args!(
            "<line x1=\"{goal}\" y1=\"30\" x2=\"{goal}\" y2=\"{bottom}\" stroke=\"#333333\" \
         stroke-dasharray=\"4 3\"/>\n</svg>\n"
        ),
    );
    svg
}

fn push(svg: &mut String, text: std::fmt::Arguments<'_>) {
    svg.write_fmt(text).expect("a string takes whatever is written");
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
