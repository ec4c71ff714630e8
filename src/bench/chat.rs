//! Prompts as the model was trained to be asked: its chat template, rendered.

use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, ErrorKind, Value, context};

use crate::model::tokenizer::ChatTemplate;
use crate::{Error, Result};

/// One turn of a conversation.
#[derive(Debug, Clone)]
pub struct Message<'a> {
    /// `system` or `user`.
    pub role: &'a str,
    /// What is said.
    pub content: &'a str,
}

/// The text of `messages` by `template`, up to where the model's answer begins.
///
/// Templates are written for Python's Jinja: its string methods, `raise_exception`, `strftime_now` (a fixed date, so that a
/// prompt is the same every day), `loop` controls and trimmed blocks are there.
///
/// # Errors
/// [`Error::Usage`] when the template is broken, or refuses the conversation by its own words.
pub fn render(template: &ChatTemplate, messages: &[Message<'_>]) -> Result<String> {
    let failed = |e: minijinja::Error| Error::usage(format!("the model's chat template cannot be used: {e:#}"));
    let mut environment = Environment::new();
    environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build().map_err(failed)?);
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.add_function("raise_exception", |message: String| -> std::result::Result<String, minijinja::Error> {
        Err(minijinja::Error::new(ErrorKind::InvalidOperation, message))
    });
    environment.add_function("strftime_now", date);
    environment.add_template("chat", &template.source).map_err(failed)?;
    let chat = environment.get_template("chat").map_err(failed)?;
    let turns: Vec<Value> = messages.iter().map(|m| context! { role => m.role, content => m.content }).collect();
    chat.render(context! {
        messages => turns,
        add_generation_prompt => true,
        // As transformers does, though there are none: a template may tell `none` from what is not defined.
        tools => (),
        documents => (),
        bos_token => template.bos_token.as_deref().unwrap_or_default(),
        eos_token => template.eos_token.as_deref().unwrap_or_default(),
    })
    .map_err(failed)
}

fn date(format: String) -> std::result::Result<String, minijinja::Error> {
    use std::fmt::Write;
    let day = chrono::NaiveDate::from_ymd_opt(2024, 7, 26).unwrap_or_default();
    let mut text = String::new();
    // A format that chrono does not know is an error of Display, which to_string would turn into a panic.
    write!(text, "{}", day.format(&format))
        .map_err(|_| minijinja::Error::new(ErrorKind::InvalidOperation, format!("unknown date format {format:?}")))?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template(source: &str) -> ChatTemplate {
        ChatTemplate { source: source.into(), bos_token: Some("<s>".into()), eos_token: Some("</s>".into()) }
    }

    const TURN: [Message<'_>; 1] = [Message { role: "user", content: "  What is 1+1? " }];

    #[test]
    fn a_template_of_turns_with_a_default_system_prompt() {
        let source = "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}\
            {{ '<|im_start|>system\nBe kind<|im_end|>\n' }}{% endif %}\
            {{'<|im_start|>' + message['role'] + '\n' + message['content'].strip() + '<|im_end|>' + '\n'}}{% endfor %}\
            {% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";
        assert_eq!(
            render(&template(source), &TURN).unwrap(),
            "<|im_start|>system\nBe kind<|im_end|>\n<|im_start|>user\nWhat is 1+1?<|im_end|>\n<|im_start|>assistant\n"
        );
    }

    #[test]
    fn namespaces_tokens_dates_and_python_methods_work() {
        let source = "{%- set ns = namespace(found=false) -%}
            {%- for m in messages if m.role == 'user' -%}{%- set ns.found = true -%}{%- endfor -%}
            {%- if tools is defined and tools -%}tools{%- endif -%}
            {%- if tools is not none or documents is not none -%}none{%- endif -%}
            {{ bos_token }}{{ 'yes' if ns.found else 'no' }} {{ strftime_now('%d %b %Y') }}
            {{- ' up'.upper() + 'a-b'.split('-')[-1] }}{{ eos_token }}";
        assert_eq!(render(&template(source), &TURN).unwrap(), "<s>yes 26 Jul 2024 UPb</s>");
    }

    #[test]
    fn a_template_that_refuses_is_quoted() {
        let error = render(&template("{{ raise_exception('only one system turn') }}"), &TURN).unwrap_err();
        assert!(error.is_usage() && error.to_string().contains("only one system turn"), "{error}");
        assert!(render(&template("{% for %}"), &TURN).is_err());
        assert!(render(&template("{{ strftime_now('%Q %') }}"), &TURN).is_err());
    }
}
