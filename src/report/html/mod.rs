//! The page: one file that needs nothing else, on- or offline. First what to use, then figures, tables and files.

mod link;
mod table;

use std::collections::BTreeSet;
use std::path::Path;

use super::advice::{self, Bound};
use super::draw::Drawn;
use super::export::svg::{self, Colours};
use super::font;
use super::group::Group;
use super::study::Study;
use super::table::Table;
use super::warnings;
use crate::base::error::{Error, Result};
use minijinja::{Environment, Value, context};
use rayon::prelude::*;

/// What the page shows.
pub struct Page<'a> {
    /// The files.
    pub study: &'a Study,
    /// The same, by subject.
    pub group: &'a Group<'a>,
    /// How much quality may be lost.
    pub bound: &'a Bound,
    /// The tables, in order.
    pub tables: &'a [Table],
    /// The figures, in order.
    pub charts: &'a [Drawn<'a>],
    /// Folder that the page will lie in; links to files are relative to it.
    pub folder: &'a Path,
}

/// The page's text.
///
/// # Errors
/// A fault in the compiled-in template.
pub fn render(page: &Page<'_>) -> Result<String> {
    let links: Vec<String> = page.study.runs.iter().map(|run| link::to(page.folder, &run.file)).collect();
    let name =
        |path: &Path| path.file_name().map_or_else(|| path.display().to_string(), |n| n.to_string_lossy().into_owned());
    let names: Vec<String> = page.study.runs.iter().map(|run| name(&run.file)).collect();
    let figures: Vec<Value> = page
        .charts
        .par_iter()
        .map(|Drawn { chart, panels }| {
            let panels: Vec<String> = panels.iter().map(|panel| svg::render(panel, Colours::Page)).collect();
            context! { id => chart.id.as_str(), title => chart.title.as_str(), caption => chart.caption.as_str(), panels }
        })
        .collect();
    let tables: Vec<Value> = page
        .tables
        .par_iter()
        .map(|t| {
            let html = table::render(t, &links, &names);
            context! { id => t.id.as_str(), title => t.title.as_str(), note => t.note.as_str(), html }
        })
        .collect();
    let cards: Vec<Value> = advice::all(page.group, page.bound)
        .into_iter()
        .map(|advice| {
            let place = advice.choice.and_then(|run| page.study.runs.iter().position(|r| std::ptr::eq(r, run)));
            let others: Vec<Vec<String>> = advice.others.into_iter().map(|(name, words)| vec![name, words]).collect();
            context! {
                chosen => advice.choice.is_some(),
                file => place.map(|i| links[i].clone()),
                headline => advice.headline,
                reason => advice.reason,
                saves => advice.saves,
                costs => advice.costs,
                caveats => advice.caveats,
                others,
            }
        })
        .collect();
    let files: Vec<Value> = page
        .study
        .runs
        .iter()
        .zip(names.iter().zip(&links))
        .enumerate()
        // A file whose parts were measured differently makes several runs.
        .filter(|(at, (run, _))| !page.study.runs[..*at].iter().any(|before| before.file == run.file))
        .map(|(_, (run, (name, link)))| {
            let parts = || page.study.runs.iter().filter(|part| part.file == run.file);
            let mut warnings: Vec<String> = parts().flat_map(|part| warnings::of(&part.result)).collect();
            let mut said = BTreeSet::new();
            warnings.retain(|warning| said.insert(warning.clone()));
            let rows =
                parts().flat_map(|part| part.result.measurements.iter().map(|m| part.result.machine(&m.block())));
            let mut machines: BTreeSet<String> = rows.filter_map(|machine| Some(machine.name()?.to_string())).collect();
            if machines.is_empty() {
                machines.extend(run.result.machine("").name().map(str::to_string));
            }
            context! {
                name => name.as_str(),
                link => link.as_str(),
                model => run.model.as_str(),
                cache => run.cache.as_str(),
                device => Vec::from_iter(machines).join(", "),
                timestamp => run.result.timestamp.as_str(),
                version => run.result.schema_version.as_str(),
                warnings,
            }
        })
        .collect();
    let rejected: Vec<String> = page.study.rejected.iter().map(ToString::to_string).collect();
    let fonts: Vec<Value> = [(false, 400), (true, 500)]
        .into_iter()
        .filter_map(|(bold, weight)| font::font(bold).map(|f| context! { weight, data => link::base64(f.bytes) }))
        .collect();

    let mut environment = Environment::new();
    let wrong = |e: minijinja::Error| Error::Invalid(format!("the report's template: {e:#}"));
    environment.add_template("page.html", include_str!("page.html")).map_err(wrong)?;
    let template = environment.get_template("page.html").map_err(wrong)?;
    template
        .render(context! {
            css => include_str!("page.css"),
            js => include_str!("page.js"),
            bound => page.bound.words(),
            fonts, cards, figures, tables, files, rejected,
        })
        .map_err(wrong)
}
