//! Rows that belong together: one model on one backend, its caches in order, and the context at which they can be compared.

use std::collections::{BTreeMap, BTreeSet};

use super::label;
use super::run::Run;
use super::study::{Row, Study};

/// One model on one backend, measured with the same settings.
#[derive(Debug)]
pub struct Subject<'a> {
    /// For people: the model, and its backend and settings where the study has several.
    pub name: String,
    /// The model's short name.
    pub model: &'a str,
    /// Attention backend.
    pub backend: &'a str,
    /// All measurements that are not skipped.
    pub rows: Vec<Row<'a>>,
    /// Measurements that were skipped, with the reason in them.
    pub skipped: Vec<Row<'a>>,
    /// The newest run of each cache, in the order of [`Group::caches`].
    pub runs: Vec<&'a Run>,
    /// See [`Subject::caches`].
    caches: Vec<&'a str>,
    /// See [`Subject::main_caches`].
    main: Vec<&'a str>,
    /// See [`Subject::baseline`].
    baseline: Option<&'a str>,
    /// Place in `rows` by cache, context and batch.
    places: BTreeMap<(&'a str, usize, usize), usize>,
}

/// A study by subject.
#[derive(Debug)]
pub struct Group<'a> {
    /// The subjects, by model and backend.
    pub subjects: Vec<Subject<'a>>,
    /// The same for scores, which are shown once however many settings costs were measured with: without rows.
    pub scored: Vec<Subject<'a>>,
    /// Names of all caches: unquantized, then by falling number of bits, then by name.
    pub caches: Vec<String>,
    colours: BTreeMap<String, u8>,
}

impl<'a> Group<'a> {
    /// Groups `study`.
    pub fn of(study: &'a Study) -> Self {
        let order: BTreeSet<_> = study.runs.iter().map(|run| (rank(run), label::order(&run.cache))).collect();
        let mut colours = BTreeMap::new();
        let mut next = 0;
        for (rank, (.., cache)) in &order {
            // Colours repeat after eight; a mark's form, which goes by the same place, does so after another number.
            let colour = if *rank == 0 { 0 } else { (next % 240 + 1) as u8 };
            next += usize::from(*rank != 0);
            colours.entry(cache.clone()).or_insert(colour);
            // What a sweep over the window is drawn in, whether or not the usual window is part of it.
            colours.entry(label::without_residual(cache)).or_insert(colour);
        }
        let caches: Vec<String> = order.into_iter().map(|(_, (.., cache))| cache).collect();
        let backends: BTreeSet<&str> = study.runs.iter().map(|r| r.result.attn_backend.as_str()).collect();

        let name = |run: &Run, settings: &[&str]| {
            let mut name = run.model.clone();
            let backend = (backends.len() > 1).then_some(run.result.attn_backend.as_str());
            backend.iter().chain(settings).for_each(|words| name.push_str(&format!(" · {words}")));
            if !run.scored.is_empty() {
                let words: Vec<&str> = run.scored.iter().map(String::as_str).collect();
                name.push_str(&format!(" · scored: {}", words.join("; ")));
            }
            name
        };

        // What is usual is told only where nothing else tells two subjects apart: a file may not say that its settings are the usual ones.
        let short = |run: &Run| name(run, &run.told.unusual_words());
        let mut bearers: BTreeMap<String, BTreeSet<_>> = BTreeMap::new();
        for run in study.newest() {
            bearers.entry(short(run)).or_default().insert(run.subject());
        }
        let own_name = |run: &Run| match bearers.get(&short(run)) {
            Some(subjects) if subjects.len() > 1 => name(run, &run.told.words()),
            _ => short(run),
        };

        let mut subjects: BTreeMap<_, Subject<'a>> = BTreeMap::new();
        let mut subject = |run: &'a Run, add: &mut dyn FnMut(&mut Subject<'a>)| {
            let subject = subjects.entry(run.subject());
            add(subject.or_insert_with(|| Subject::new(own_name(run), run)));
        };
        for row in study.rows().filter(|r| r.measured.is_some()) {
            subject(row.run, &mut |s| if row.skipped() { s.skipped.push(row) } else { s.rows.push(row) });
        }
        for run in study.newest() {
            subject(run, &mut |s| s.runs.push(run));
        }

        let mut newest: BTreeMap<_, &'a Run> = BTreeMap::new();
        for run in &study.runs {
            let chosen = newest.entry((run.scored_as(), &run.cache)).or_insert(run);
            if run.result.timestamp >= chosen.result.timestamp {
                *chosen = run;
            }
        }
        let mut scored: BTreeMap<_, Subject<'a>> = BTreeMap::new();
        for run in newest.into_values() {
            scored.entry(run.scored_as()).or_insert_with(|| Subject::new(name(run, &[]), run)).runs.push(run);
        }

        let mut subjects: Vec<Subject<'a>> = subjects.into_values().collect();
        let mut scored: Vec<Subject<'a>> = scored.into_values().collect();
        for s in subjects.iter_mut().chain(&mut scored) {
            s.runs.sort_by_key(|run| (rank(run), label::order(&run.cache)));
            s.rows.sort_by_key(|row| (rank(row.run), label::order(&row.run.cache), row.batch(), row.context()));
            s.look_up();
        }
        Group { subjects, scored, caches, colours }
    }

    /// Palette place of a cache, the same in every figure.
    pub fn colour(&self, cache: &str) -> u8 {
        self.colours.get(cache).copied().unwrap_or(1)
    }
}

/// Order of caches: unquantized first, then by falling number of bits.
fn rank(run: &Run) -> u8 {
    if !run.quantized() {
        return 0;
    }
    let quant = &run.result.kv_quant;
    let bits = quant.nbits.unwrap_or(16).saturating_add(quant.nbits_value.or(quant.nbits).unwrap_or(16));
    255 - bits.min(254)
}

impl<'a> Subject<'a> {
    /// That of `run`, empty.
    fn new(name: String, run: &'a Run) -> Self {
        Subject {
            name,
            model: &run.model,
            backend: &run.result.attn_backend,
            rows: Vec::new(),
            skipped: Vec::new(),
            runs: Vec::new(),
            caches: Vec::new(),
            main: Vec::new(),
            baseline: None,
            places: BTreeMap::new(),
        }
    }

    /// Derives what tables and figures ask for again and again.
    fn look_up(&mut self) {
        let mut seen = BTreeSet::new();
        for run in self.rows.iter().map(|r| r.run).chain(self.runs.iter().copied()) {
            if seen.insert(run.cache.as_str()) {
                self.caches.push(&run.cache);
            }
            if !run.quantized() && self.baseline.is_none() {
                self.baseline = Some(&run.cache);
            }
        }
        // Of caches that differ in the residual window only, the one with the usual window, or with the window nearest to it.
        let mut nearest: BTreeMap<String, (usize, &str)> = BTreeMap::new();
        for &cache in &self.caches {
            let distance = label::residual(cache).abs_diff(label::USUAL_RESIDUAL);
            let main = nearest.entry(label::without_residual(cache)).or_insert((distance, cache));
            if distance < main.0 {
                *main = (distance, cache);
            }
        }
        let main: BTreeSet<&str> = nearest.into_values().map(|(_, cache)| cache).collect();
        self.main = self.caches.iter().copied().filter(|cache| main.contains(cache)).collect();
        for (at, row) in self.rows.iter().enumerate() {
            if let (Some(context), Some(batch)) = (row.context(), row.batch()) {
                self.places.entry((&row.run.cache, context, batch)).or_insert(at);
            }
        }
    }

    /// Names of the caches measured, in order.
    pub fn caches(&self) -> &[&'a str] {
        &self.caches
    }

    /// Names of the caches, one of those that differ in the residual window only: the residual sweep shows the others.
    pub fn main_caches(&self) -> &[&'a str] {
        &self.main
    }

    /// Batch sizes measured.
    pub fn batches(&self) -> BTreeSet<usize> {
        self.rows.iter().filter_map(Row::batch).collect()
    }

    /// The measurement of `cache` at `context` and `batch`.
    pub fn row(&self, cache: &str, context: usize, batch: usize) -> Option<&Row<'a>> {
        self.places.get(&(cache, context, batch)).map(|&at| &self.rows[at])
    }

    /// The run whose quality blocks speak for `cache`.
    pub fn run(&self, cache: &str) -> Option<&'a Run> {
        self.runs.iter().copied().find(|run| run.cache == cache)
    }

    /// The unquantized cache's name.
    pub fn baseline(&self) -> Option<&'a str> {
        self.baseline
    }

    /// The (context, batch) at which caches are compared: where most of them ran within the card's memory; of several, the
    /// longest context, then the smallest batch.
    pub fn common_ground(&self) -> Option<(usize, usize)> {
        let mut counts: BTreeMap<(usize, usize), BTreeSet<&str>> = BTreeMap::new();
        for row in self.rows.iter().filter(|r| !r.spilled()) {
            if let (Some(context), Some(batch)) = (row.context(), row.batch()) {
                counts.entry((context, batch)).or_default().insert(&row.run.cache);
            }
        }
        let best = counts
            .into_iter()
            .max_by_key(|((context, batch), caches)| (caches.len(), *context, std::cmp::Reverse(*batch)));
        best.map(|(place, _)| place)
    }
}
