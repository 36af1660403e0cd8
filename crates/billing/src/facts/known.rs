//! Fields that a request of the OpenAI API may have besides those that its format reads: none of them
//! adds to the prompt more than it is long, overrides a limit, or has the work done by another.
//!
//! The formats have many vendors, and each has fields of its own: some undo every limit (`extra_body`
//! of `LiteLLM` is laid over all that was sent). So what is not known is refused, until the operator
//! says for a route what its upstream does no harm with ([`Ceiling::pass_fields`]).
//!
//! [`Ceiling::pass_fields`]: super::Ceiling::pass_fields

/// How tokens are chosen: OpenAI's own fields and those of the usual compatible servers (vLLM, TGI,
/// llama.cpp, Mistral).
pub(super) const SAMPLING: &[&str] = &[
    "allowed_token_ids",
    "bad_words",
    "dynatemp_exponent",
    "dynatemp_range",
    "frequency_penalty",
    "grammar",
    "guided_choice",
    "guided_decoding_backend",
    "guided_grammar",
    "guided_json",
    "guided_regex",
    "ignore_eos",
    "include_stop_str_in_output",
    "json_schema",
    "length_penalty",
    "logit_bias",
    "min_p",
    "mirostat",
    "mirostat_eta",
    "mirostat_tau",
    "no_repeat_ngram_size",
    "presence_penalty",
    "random_seed",
    "repeat_last_n",
    "repeat_penalty",
    "repetition_penalty",
    "response_format",
    "seed",
    "skip_special_tokens",
    "spaces_between_special_tokens",
    "stop",
    "stop_token_ids",
    "structured_outputs",
    "temperature",
    "top_a",
    "top_k",
    "top_n_sigma",
    "top_p",
    "typical_p",
    "xtc_probability",
    "xtc_threshold",
];

/// For whom a request is, and what is remembered of it.
pub(super) const CALLER: &[&str] = &[
    "cache_prompt",
    "cache_salt",
    "metadata",
    "prompt_cache_key",
    "prompt_cache_options",
    "prompt_cache_retention",
    "safety_identifier",
    "user",
];
