//! `[[route]]`: what is sold, at which price, for which payments.

mod models;
mod offer;
mod pattern;
mod price;

use std::sync::Arc;

use farebox_billing::{Ceiling, Format, OutputLimit, Price};
use farebox_gateway::{
    Keep, Models, OfferTemplate, PathPattern, Route, Upstream, Versions, check_routes,
};
use farebox_store::SettleMode;
use http::Method;
use url::Url;

use self::pattern::Match;
use super::network::Networks;
use super::problem::{Problem, Problems};
use super::section::{Section, Value};
use super::upstream::Upstreams;
use super::values;

/// The list of models of an OpenAI-compatible API: clients ask for it before they buy.
const MODELS_PATH: &str = "/v1/models";

/// Formats whose answers have tokens.
const WITH_OUTPUT: &[Format] = &[
    Format::OpenAiChat,
    Format::OpenAiCompletions,
    Format::OpenAiResponses,
    Format::AnthropicMessages,
];
/// Formats that give several answers to one request.
const WITH_CHOICES: &[Format] = &[Format::OpenAiChat, Format::OpenAiCompletions];
/// Formats that have two fields for the limit.
const WITH_TWO_LIMITS: &[Format] = &[Format::OpenAiChat];

/// What a route may refer to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Declared<'a> {
    /// `[network.…]`.
    pub(crate) networks: &'a Networks,
    /// `[[upstream]]`.
    pub(crate) upstreams: &'a Upstreams,
    /// `public_url` of `[server]`, where that is right.
    pub(crate) public_url: Option<&'a Url>,
    /// Whose payments are taken where a route does not say it.
    pub(crate) versions: Versions,
    /// The paths of the facilitator, where it is shown.
    pub(crate) taken: &'a [PathPattern],
}

/// Reads every `[[route]]`, in the order of the file.
pub(crate) fn routes(
    list: &Value<'_>,
    declared: Declared<'_>,
    problems: &mut Problems,
) -> Vec<Arc<Route>> {
    let mut routes = Vec::new();
    let mut matches: Vec<Match> = Vec::new();
    for entry in problems.keep(list.list("`[[route]]` tables")).unwrap_or_default() {
        let section = entry.section("[[route]]", "a table with `match`, `upstream`, `price`");
        let Some(mut section) = problems.keep(section) else { continue };
        let matched = section.required("match", problems, pattern::read);
        if let Some(matched) = &matched {
            pattern::check_reachable(matched, &matches, problems);
            pattern::check_free(matched, declared.taken, problems);
            matches.push(matched.clone());
        }
        routes.extend(route(section, matched, declared, problems));
    }
    let routes: Vec<Arc<Route>> = routes.into_iter().map(Arc::new).collect();
    if let (Some(url), false) = (declared.public_url, problems.fatal()) {
        check_whole(&routes, url, &matches, problems);
    }
    routes
}

/// What no single key is to blame for: a 402 answer that proxies would not pass, for example.
fn check_whole(routes: &[Arc<Route>], url: &Url, matches: &[Match], problems: &mut Problems) {
    let Err(error) = check_routes(routes, url) else { return };
    let span = matches.iter().find(|it| it.name == error.route()).map(|it| it.span.clone());
    let problem = Problem::error(span.unwrap_or(0..0), "this route cannot work");
    problems.push(problem.label(error.to_string()));
}

/// The free list of models that an OpenAI-compatible upstream brings along, unless the file has a
/// route for it.
pub(crate) fn implied_models_route(routes: &[Arc<Route>]) -> Option<Arc<Route>> {
    let declared = routes.iter().any(|it| it.method == Method::GET && it.path.matches(MODELS_PATH));
    let model = routes.iter().find(|it| it.format.is_metered())?;
    (!declared).then(|| {
        Arc::new(Route {
            name: format!("GET {MODELS_PATH}"),
            method: Method::GET,
            path: PathPattern::Exact(MODELS_PATH.to_owned()),
            upstream: Arc::clone(&model.upstream),
            format: Format::Opaque,
            price: Price::Free,
            offers: Vec::new(),
            settle: SettleMode::After,
            description: None,
            ceiling: Ceiling::default(),
            models: Models::Any,
            versions: Versions::default(),
            keep: None,
        })
    })
}

fn route(
    mut section: Section<'_>,
    matched: Option<Match>,
    declared: Declared<'_>,
    problems: &mut Problems,
) -> Option<Route> {
    let upstream = read_upstream(&mut section, declared.upstreams, problems);
    let settle = section.optional("settle", problems, read_settle).unwrap_or(SettleMode::After);
    let sale = Sale::read(&mut section, matched.as_ref(), (declared.networks, settle), problems);
    let description = section.optional("description", problems, values::word);
    let fitting = fitting_format(matched.as_ref());
    let ceiling = read_ceiling(&mut section, sale.format, fitting, problems);
    let models = models::read(&mut section, (sale.format, sale.price), problems);
    let versions = section.optional("x402_v1", problems, values::x402_v1);
    let keep = read_keep(&mut section, sale.price, problems);
    section.close(problems);
    let matched = matched?;
    Some(Route {
        name: matched.name,
        method: matched.method,
        path: matched.path,
        upstream: upstream?,
        format: sale.format?,
        price: sale.price?,
        offers: sale.offers?,
        settle,
        description,
        ceiling,
        models,
        versions: versions.unwrap_or(declared.versions),
        keep,
    })
}

/// What belongs together in a route: what is counted, what it costs, how it is paid. Each is `None`
/// after a mistake.
struct Sale {
    format: Option<Format>,
    price: Option<Price>,
    offers: Option<Vec<OfferTemplate>>,
}

impl Sale {
    fn read(
        section: &mut Section<'_>,
        matched: Option<&Match>,
        (networks, settle): (&Networks, SettleMode),
        problems: &mut Problems,
    ) -> Self {
        let format_value = section.get("format");
        let format = match &format_value {
            Some(value) => problems.keep(read_format(value, matched)),
            None => Some(Format::Opaque),
        };
        let price_value = section.get("price");
        if price_value.is_none() {
            problems.push(section.missing("price").help(
                "a route is never free by accident: if it shall cost nothing, write \
                 `price = \"free\"`",
            ));
        }
        let price = price_value.as_ref().and_then(|it| price::read(it, problems));
        let offer_value = section.get("offer");
        let offers = match &offer_value {
            Some(value) => offer::read(value, price, networks, problems),
            None => price.map(|it| offer::standard(it, settle, networks)),
        };
        if let (Some(value), Some(price), Some(format)) = (&price_value, price, format) {
            let span = format_value.as_ref().map(Value::span);
            let fitting = fitting_format(matched);
            problems.extend(price::check(value, price, (format, span), fitting));
            let offers = offers.as_deref().unwrap_or_default();
            problems.extend(price::check_in_tokens(value, price, offers));
            problems.extend(price::check_exposure(value, price, offers));
        }
        Self { format, price, offers }
    }
}

/// What one request may use; only a metered format has such bounds.
fn read_ceiling(
    section: &mut Section<'_>,
    format: Option<Format>,
    fitting: Format,
    problems: &mut Problems,
) -> Ceiling {
    let bounds = |value: &Value<'_>, formats: &[Format]| match format {
        Some(Format::Opaque) => Err(no_effect(value)
            .label("only routes with a metered format have tokens")
            .help(format!("add `format = \"{fitting}\"`, or remove this key"))),
        Some(format) if !formats.contains(&format) => Err(no_effect(value)
            .label(format!("nothing that `{format}` has"))
            .help("remove this key")),
        Some(_) | None => Ok(()),
    };
    let standard = Ceiling::default();
    let max_output_tokens = section.optional("max_output_tokens", problems, |value| {
        bounds(value, WITH_OUTPUT)?;
        value.count("a number of tokens of at least 1")
    });
    let max_choices = section.optional("max_choices", problems, |value| {
        bounds(value, WITH_CHOICES)?;
        value.count("a number of choices of at least 1")
    });
    let output_limit = section.optional("output_limit", problems, |value| {
        bounds(value, WITH_TWO_LIMITS)?;
        read_output_limit(value)
    });
    let pass_fields = section.optional("pass_fields", problems, |value| {
        bounds(value, &Format::ALL)?;
        read_pass_fields(value)
    });
    Ceiling {
        max_output_tokens: max_output_tokens.unwrap_or(standard.max_output_tokens),
        max_choices: max_choices.unwrap_or(standard.max_choices),
        output_limit: output_limit.unwrap_or(standard.output_limit),
        pass_fields: pass_fields.unwrap_or(standard.pass_fields),
    }
}

/// Whether answers are kept for repeats; both bounds are named by whoever wants it.
fn read_keep(
    section: &mut Section<'_>,
    price: Option<Price>,
    problems: &mut Problems,
) -> Option<Keep> {
    const EXPECTED: &str = "a table such as { keep = \"10m\", max_bytes = \"64KiB\" }";
    let value = section.get("idempotency")?;
    if price == Some(Price::Free) {
        problems.push(
            no_effect(&value)
                .label("answers that cost nothing are not kept")
                .help("remove this key"),
        );
    }
    let mut section = problems.keep(value.section("`idempotency`", EXPECTED))?;
    let span = section.required("keep", problems, values::duration);
    let bytes_max = section.required("max_bytes", problems, values::size);
    section.close(problems);
    Some(Keep { span: span?, bytes_max: bytes_max? })
}

fn no_effect(value: &Value<'_>) -> Problem {
    Problem::error(value.key_span(), format!("`{}` has no effect here", value.key()))
}

fn read_pass_fields(value: &Value<'_>) -> Result<Vec<String>, Problem> {
    const EXPECTED: &str = "a list of names such as [\"vendor_option\"]";
    value.list(EXPECTED)?.iter().map(values::word).collect()
}

fn read_output_limit(value: &Value<'_>) -> Result<OutputLimit, Problem> {
    let all = [OutputLimit::MaxTokens, OutputLimit::MaxCompletionTokens];
    let text = value.text("the field that the upstream obeys")?;
    all.into_iter().find(|it| it.as_str() == text).ok_or_else(|| {
        Problem::error(value.span(), format!("unknown output limit `{text}`"))
            .label("expected the field that the upstream obeys")
            .suggest(text, all.map(OutputLimit::as_str))
    })
}

fn read_upstream(
    section: &mut Section<'_>,
    upstreams: &Upstreams,
    problems: &mut Problems,
) -> Option<Arc<Upstream>> {
    let value = section.get("upstream");
    let Some(value) = value else {
        problems.push(section.missing("upstream").help("name one of the `[[upstream]]` tables"));
        return None;
    };
    let name = problems.keep(value.text("the name of an upstream"))?;
    if !upstreams.declared.iter().any(|it| it == name) {
        let known = upstreams.declared.iter().map(String::as_str);
        problems.push(
            Problem::error(value.span(), format!("there is no upstream `{name}`"))
                .label("expected the `name` of an `[[upstream]]`")
                .suggest(name, known),
        );
    }
    upstreams.good.iter().find(|it| it.name == name).cloned()
}

fn read_format(value: &Value<'_>, matched: Option<&Match>) -> Result<Format, Problem> {
    let known = Format::ALL.map(Format::as_str);
    let text = value.text("a format as a string")?;
    let format: Format = text.parse().map_err(|_| {
        Problem::error(value.span(), format!("unknown format `{text}`"))
            .label("expected how requests and answers look")
            .suggest(text, known)
    })?;
    if format.is_metered() && matched.is_some_and(|it| it.method != Method::POST) {
        return Err(value.wrong(format!("`opaque`: `{format}` is asked for by POST")));
    }
    Ok(format)
}

/// The format of the API that usually has this path.
fn fitting_format(matched: Option<&Match>) -> Format {
    let path = matched.map(|it| it.path.as_str()).unwrap_or_default();
    let fits = |it: &Format| it.path().is_some_and(|own| path.ends_with(own));
    Format::ALL.into_iter().find(fits).unwrap_or(Format::OpenAiChat)
}

fn read_settle(value: &Value<'_>) -> Result<SettleMode, Problem> {
    let words = [SettleMode::After, SettleMode::Before, SettleMode::Background];
    let text = value.text("`after`, `before` or `background`")?;
    SettleMode::parse(text).ok_or_else(|| {
        Problem::error(value.span(), format!("unknown settle mode `{text}`"))
            .label("expected when the money moves: `after`, `before` or `background` the answer")
            .suggest(text, words.map(SettleMode::as_str))
    })
}
