//! Question sets on the built-in model, which knows none of the answers: what counts is that every item is asked once.

use std::path::Path;

use kvprof::schema::{Benchmarks, QuestionItem};

use super::{Bench, untimed};

fn write_math(folder: &Path, problems: usize) {
    let line = |i: usize| {
        let problem = format!(
            "A farmer has {i} sheep and buys {} more, then sells half of all of them. How many are left?",
            i + 4
        );
        serde_json::json!({"problem": problem, "answer": (i + 2).to_string(), "subject": "Algebra", "unique_id": format!("p/{i}")})
    };
    let text: Vec<String> = (0..problems).map(|i| line(i).to_string()).collect();
    std::fs::write(folder.join("test.jsonl"), text.join("\n")).unwrap();
}

fn write_mmlu(folder: &Path) {
    for (split, rows) in [("dev", 5), ("test", 4)] {
        std::fs::create_dir_all(folder.join(split)).unwrap();
        for subject in ["village_history", "letter_boxes"] {
            let row = |i: usize| {
                format!(
                    "\"Which house, of all, is number {i}?\",the first,the second,the third,the last,{}\n",
                    ["A", "B", "C", "D"][i % 4]
                )
            };
            std::fs::write(
                folder.join(format!("{split}/{subject}_{split}.csv")),
                (0..rows).map(row).collect::<String>(),
            )
            .unwrap();
        }
    }
}

/// Runs a benchmark of `items` questions at once, then again stopped before every possible item and taken up again.
fn stopped_anywhere_gives_the_same(bench: &mut dyn FnMut() -> Bench, benchmark: &str, quant: &str, items: usize) {
    let whole = untimed(bench().run(benchmark, quant).unwrap());
    for stop_at in 0..items {
        let (partial, stopped) = bench().run_on(benchmark, quant, Benchmarks::default(), stop_at);
        assert!(stopped.is_err());
        for score in [&partial.math, &partial.mmlu].into_iter().flatten() {
            assert_eq!((score.questions, score.stopped_before()), (stop_at, Some(items)));
        }
        // As a file would have it, in a new process.
        let partial: Benchmarks = serde_json::from_value(serde_json::to_value(partial).unwrap()).unwrap();
        let mut resumed = bench();
        let (_, finished) = resumed.run_on(benchmark, quant, partial, usize::MAX);
        assert_eq!(untimed(finished.unwrap()), whole, "{benchmark} stopped at {stop_at}");
        assert!(resumed.references.outcomes.len() <= items - stop_at + 1, "an item was asked twice");
    }
}

#[test]
fn math_stopped_at_any_item_resumes_to_the_identical_result() {
    let folder = tempfile::tempdir().unwrap();
    write_math(folder.path(), 6);
    let mut bench = || {
        let mut bench = Bench::builtin();
        bench.settings.data = Some(folder.path().into());
        bench.settings.math_problems = 3;
        bench.settings.max_new_tokens = 100;
        bench
    };
    stopped_anywhere_gives_the_same(&mut bench, "math", "int2-hqq,residual=64", 3);
    let score = bench().run("math", "int2-hqq,residual=64").unwrap().math.unwrap();
    assert_eq!((score.questions, score.items.len(), score.prompt.as_deref()), (3, 3, Some("plain")));
    assert_eq!((score.planned, score.stopped_before()), (Some(3), None));
    assert!(score.quantized_read_fraction.unwrap() > 0.0);
    assert!(score.items.iter().all(|item| item.outcome.text.is_some() && item.reference.is_some()));
    assert_eq!(score.data.unwrap().name, "math500");
}

#[test]
fn a_question_set_that_went_on_elsewhere_says_which_machine_answered_how_much() {
    let folder = tempfile::tempdir().unwrap();
    write_math(folder.path(), 3);
    let bench = |machine: &str| {
        let mut bench = Bench::builtin();
        bench.settings.data = Some(folder.path().into());
        bench.settings.max_new_tokens = 8;
        bench.machine = Some(machine.into());
        bench
    };
    let (mut stopped, _) = bench("one").run_on("math", "none", Benchmarks::default(), 2);
    stopped.math.as_mut().unwrap().elapsed_s = Some(1000.0);
    let math = bench("another").run_on("math", "none", stopped, usize::MAX).1.unwrap().math.unwrap();
    let told: Vec<_> = math.answered_on.iter().map(|part| (part.machine.as_deref().unwrap(), part.questions)).collect();
    assert_eq!(told, [("one", 2), ("another", 1)]);
    assert!(math.elapsed_s.unwrap() > 1000.0, "the time of both: {:?}", math.elapsed_s);
}

#[test]
fn answers_side_by_side_are_those_of_one_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    // Prompts of lengths that differ by less than an answer, and by more: short answers end while long prompts are still read.
    let line = |(i, times): (usize, &usize)| {
        let problem = "One sheep and one more are two. ".repeat(*times) + "How many are three?";
        serde_json::json!({"problem": problem, "answer": "3", "unique_id": format!("p/{i}")}).to_string()
    };
    let text: Vec<String> = [6, 1, 30, 7, 2, 15].iter().enumerate().map(line).collect();
    std::fs::write(folder.path().join("test.jsonl"), text.join("\n")).unwrap();
    let mut bench = Bench::builtin();
    bench.settings.data = Some(folder.path().into());
    bench.settings.max_new_tokens = 24;
    let texts = |bench: &mut Bench| -> Vec<(usize, Option<String>, u64, u64)> {
        let items = bench.run("math", "int8-hqq,residual=64").unwrap().math.unwrap().items;
        let told = |QuestionItem { prompt_tokens, outcome, .. }| {
            (prompt_tokens, outcome.text, outcome.key_reads, outcome.key_reads_from_codes)
        };
        let mut told: Vec<_> = items.into_iter().map(told).collect();
        told.sort();
        told
    };
    let single = texts(&mut bench);
    assert!(single.windows(2).all(|pair| pair[0].0 < pair[1].0), "no two are of one length: {single:?}");
    for batch_size in [2, 3, 4] {
        bench.settings.batch_size = batch_size;
        assert_eq!(texts(&mut bench), single, "{batch_size} at a time");
    }
    // Stopped after the first batch of four, and taken up again.
    let whole = untimed(bench.run("math", "int8-hqq,residual=64").unwrap());
    let (stopped, _) = bench.run_on("math", "int8-hqq,residual=64", Benchmarks::default(), 1);
    let score = stopped.math.as_ref().unwrap();
    assert_eq!((score.questions, score.stopped_before()), (4, Some(6)));
    let (_, finished) = bench.run_on("math", "int8-hqq,residual=64", stopped, usize::MAX);
    assert_eq!(untimed(finished.unwrap()), whole);
}

#[test]
fn mmlu_stopped_at_any_item_resumes_to_the_identical_result() {
    let folder = tempfile::tempdir().unwrap();
    write_mmlu(folder.path());
    let mut bench = || {
        let mut bench = Bench::builtin();
        bench.settings.data = Some(folder.path().into());
        bench.settings.mmlu_questions = 3;
        bench
    };
    stopped_anywhere_gives_the_same(&mut bench, "mmlu", "int4-hqq", 3);
    let score = bench().run("mmlu", "int4-hqq").unwrap().mmlu.unwrap();
    assert_eq!((score.questions, score.by_subject.len(), score.shots), (3, 2, Some(5)));
    // Two examples are as many as are asked for.
    let mut fewer = bench();
    fewer.settings.mmlu_shots = 2;
    let fewer = fewer.run("mmlu", "none").unwrap().mmlu.unwrap();
    assert_eq!(fewer.shots, Some(2));
    assert!(fewer.items[0].prompt_tokens < score.items[0].prompt_tokens, "{:?}", fewer.items[0]);
    for item in &score.items {
        let p: f64 = item.outcome.log_probabilities.iter().map(|p| p.exp()).sum();
        assert!(item.outcome.log_probabilities.len() == 4 && p > 0.0 && p <= 1.0 + 1e-6, "{item:?}");
    }
}

#[test]
fn data_is_read_once_for_all_caches_of_a_model() {
    let folder = tempfile::tempdir().unwrap();
    write_math(folder.path(), 1);
    write_mmlu(folder.path());
    let book = folder.path().join("book.txt");
    std::fs::write(&book, "The old miller walked to the river and came back late. ".repeat(60)).unwrap();
    let mut bench = Bench::builtin();
    bench.settings.data = Some(folder.path().into());
    bench.settings.max_new_tokens = 150;
    bench.settings.mmlu_questions = 1;
    bench.settings.context_lengths = vec![320];
    bench.settings.needle_depths = vec![0.5];
    let book = book.to_str().unwrap().to_string();
    (bench.settings.needle_haystack, bench.settings.ppl_data) = (book.clone(), Some(book));
    bench.settings.ppl_tokens = 32;
    let benchmarks = ["ppl", "kld", "needle", "mmlu", "math"];
    for benchmark in benchmarks {
        bench.run(benchmark, "none").unwrap();
    }
    folder.close().unwrap();
    for benchmark in benchmarks {
        bench.run(benchmark, "int4-hqq").unwrap();
    }
    // Other questions are not those that were read.
    bench.settings.seed += 1;
    for benchmark in benchmarks {
        assert!(bench.run(benchmark, "int4-hqq").is_err(), "{benchmark}");
    }
}

#[test]
fn caches_that_are_fed_alike_share_a_reference_and_others_have_their_own() {
    let folder = tempfile::tempdir().unwrap();
    write_math(folder.path(), 1);
    write_mmlu(folder.path());
    let mut bench = Bench::builtin();
    bench.settings.data = Some(folder.path().into());
    bench.settings.max_new_tokens = 150;
    bench.settings.mmlu_questions = 1;
    bench.settings.context_lengths = vec![320];
    bench.settings.needle_depths = vec![0.5];
    // Windows of 64 and 128 tokens are whole chunks; blocks leave one of 36 where they leave one of 100.
    for (quant, references) in [("none", 1), ("int4-hqq,residual=64", 1), ("int8-hqq", 1)].into_iter().chain([
        ("int4-hqq,residual=100", 2),
        ("int4-hqq,residual=36", 2),
        ("int4-hqq,residual=37", 3),
    ]) {
        for benchmark in ["needle", "mmlu", "math"] {
            bench.run(benchmark, quant).unwrap();
        }
        assert_eq!(bench.references.needle.len(), references, "{quant}");
        // One question of each set.
        assert_eq!(bench.references.outcomes.len(), 2 * references, "{quant}");
    }
}

#[test]
fn other_questions_than_those_saved_are_asked_anew() {
    let folder = tempfile::tempdir().unwrap();
    write_math(folder.path(), 6);
    let mut bench = Bench::builtin();
    bench.settings.data = Some(folder.path().into());
    bench.settings.math_problems = 2;
    bench.settings.max_new_tokens = 8;
    let first = bench.run("math", "none").unwrap();
    bench.settings.max_new_tokens = 9;
    let (_, other) = bench.run_on("math", "none", first.clone(), usize::MAX);
    let (first, other) = (first.math.unwrap(), other.unwrap().math.unwrap());
    assert_ne!(first.plan, other.plan);
    assert!(other.items.iter().any(|item| item.outcome.generated_tokens == Some(9)), "{:?}", other.items);
    // Other problems under the same names and with the same answers.
    let file = folder.path().join("test.jsonl");
    let renamed = std::fs::read_to_string(&file).unwrap().replace("sheep", "ducks");
    std::fs::write(&file, renamed).unwrap();
    bench.settings.max_new_tokens = 8;
    bench.readings = kvprof::bench::Readings::default();
    assert_ne!(bench.run("math", "none").unwrap().math.unwrap().plan, first.plan);
}

#[test]
fn two_problems_of_one_name_are_answered_each_for_itself() {
    let folder = tempfile::tempdir().unwrap();
    let line = |times: usize| {
        let problem = "One sheep and one more are two. ".repeat(times) + "How many are three?";
        serde_json::json!({"problem": problem, "answer": "3", "unique_id": "p"}).to_string()
    };
    std::fs::write(folder.path().join("test.jsonl"), [line(1), line(9)].join("\n")).unwrap();
    let mut bench = Bench::builtin();
    bench.settings.data = Some(folder.path().into());
    bench.settings.max_new_tokens = 4;
    let items = bench.run("math", "none").unwrap().math.unwrap().items;
    assert!(items[0].prompt_tokens < items[1].prompt_tokens, "{items:?}");
    assert!(items[0].outcome.key_reads < items[1].outcome.key_reads, "{items:?}");
}

#[test]
fn an_answer_that_was_cut_off_says_so_and_ends_where_the_model_does() {
    let folder = tempfile::tempdir().unwrap();
    let line = |times: usize| {
        let problem = "One sheep and one more are two. ".repeat(times) + "How many are three?";
        serde_json::json!({"problem": problem, "answer": "3", "unique_id": format!("p/{times}")}).to_string()
    };
    let mut bench = Bench::builtin();
    bench.settings.data = Some(folder.path().into());
    bench.settings.max_new_tokens = 40;
    let mut asked = |times: [usize; 2]| {
        std::fs::write(folder.path().join("test.jsonl"), times.map(line).join("\n")).unwrap();
        bench.readings = kvprof::bench::Readings::default();
        bench.run("math", "none").unwrap().math.unwrap()
    };
    let first = asked([1, 2]);
    let [once, twice] = [0, 1].map(|i| first.items[i].prompt_tokens);
    // The model has 2048 positions, of which this leaves 20 or a few more.
    let math = asked([1, 1 + (2048 - 20 - once) / (twice - once)]);
    let [short, long] = &math.items[..] else { panic!("{:?}", math.items) };
    let written = |item: &QuestionItem| item.outcome.generated_tokens.unwrap();
    // The model does not end by itself.
    assert_eq!((written(short), long.prompt_tokens + written(long)), (40, 2048));
    assert!(written(long) > 0 && written(long) < 40, "{}", long.prompt_tokens);
    assert_eq!(math.truncated, Some(2));
}

#[test]
fn a_question_set_that_never_read_a_code_leaves_no_score() {
    let folder = tempfile::tempdir().unwrap();
    write_math(folder.path(), 2);
    let mut bench = Bench::builtin();
    bench.settings.data = Some(folder.path().into());
    bench.settings.max_new_tokens = 4;
    let (kept, result) = bench.run_on("math", "int4-hqq,residual=1024", Benchmarks::default(), usize::MAX);
    assert!(result.unwrap_err().to_string().contains("no key was read from codes"));
    assert_eq!(kept.math, None);
}

#[test]
fn a_score_says_with_which_seed_its_questions_were_drawn_where_they_were() {
    let folder = tempfile::tempdir().unwrap();
    write_math(folder.path(), 4);
    write_mmlu(folder.path());
    let mut bench = Bench::builtin();
    bench.settings.data = Some(folder.path().into());
    bench.settings.max_new_tokens = 4;
    // Four problems, and eight questions of MMLU.
    for (wanted, of_math, of_mmlu) in [(2, Some(42), Some(42)), (4, None, Some(42)), (8, None, None), (0, None, None)] {
        (bench.settings.math_problems, bench.settings.mmlu_questions) = (wanted, wanted);
        assert_eq!(bench.run("math", "none").unwrap().math.unwrap().seed, of_math, "{wanted} of 4");
        assert_eq!(bench.run("mmlu", "none").unwrap().mmlu.unwrap().seed, of_mmlu, "{wanted} of 8");
    }
}
