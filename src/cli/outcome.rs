//! From the outcomes of runs to error lines and an exit code.

use std::process::ExitCode;

use crate::Error;
use crate::base::message::tell;
use crate::schema::RunResult;
use crate::session::interrupt;
use crate::session::runner::Outcome;

/// One line for each failure on standard error, and the exit code of them all together; after Ctrl-C also how much is complete and, by
/// `resuming`, how the rest is had. `results` are what the outcomes have of what was asked for; where none of them holds a number, that is
/// no success.
pub fn exit_code(outcomes: &[Outcome], results: &[&RunResult], planned: usize, resuming: Option<&str>) -> ExitCode {
    // Runs often fail for one reason, which is said once.
    let mut said: Vec<(String, Vec<&str>)> = Vec::new();
    for outcome in outcomes {
        let Some(error) = &outcome.error else { continue };
        let message = error.to_string();
        match said.iter_mut().find(|(other, _)| *other == message) {
            Some((_, names)) => names.push(&outcome.name),
            None => said.push((message, vec![&outcome.name])),
        }
    }
    for (message, names) in said {
        match names.as_slice() {
            [one] if message.contains(one) => tell!("error: {message}"),
            [one] => tell!("error: {one}: {message}"),
            [first, rest @ ..] => tell!("error: {first} and {} more: {message}", rest.len()),
            [] => {}
        }
    }
    let errors: Vec<&Error> = outcomes.iter().filter_map(|o| o.error.as_ref()).collect();
    if errors.iter().any(|e| matches!(e, Error::Interrupted)) || (interrupt::requested() && outcomes.len() < planned) {
        let kept = || outcomes.iter().filter(|outcome| outcome.stored.is_some());
        if let Some(resuming) = resuming.filter(|_| kept().count() > 0) {
            let complete = kept().filter(|outcome| outcome.error.is_none()).count();
            tell!("{complete} of {planned} runs are complete; {resuming}");
        }
        return ExitCode::from(interrupt::EXIT_CODE as u8);
    }
    if errors.iter().any(|e| e.is_out_of_space()) && outcomes.len() < planned {
        let left = planned - outcomes.len();
        tell!(
            "no room for results: stopped with {left} runs not begun; what was written is complete. Make room and run again"
        );
    }
    // A request is wrong as a whole only where nothing came of it.
    let nothing = |outcome: &Outcome| outcome.stored.as_ref().is_none_or(|stored| stored.measured.is_empty());
    // A run that another process has may be measured there.
    let all_skipped = !results.is_empty()
        && outcomes.iter().all(|outcome| outcome.stored.is_some())
        && !results.iter().any(|result| result.has_measurements());
    match errors.as_slice() {
        [] if all_skipped => {
            tell!(
                "error: nothing was measured: every row was skipped, for the reasons warned of above; give shorter --context-lengths, \
                 smaller --batch-sizes or a smaller model, or make memory free"
            );
            ExitCode::from(super::SOME_FAILED)
        }
        [] => ExitCode::SUCCESS,
        errors
            if errors.len() == outcomes.len()
                && errors.iter().all(|e| e.is_usage())
                && outcomes.iter().all(nothing) =>
        {
            ExitCode::from(super::USAGE)
        }
        _ => ExitCode::from(super::SOME_FAILED),
    }
}
