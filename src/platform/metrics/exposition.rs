//! The two formats of `/metrics`: OpenMetrics 1.0 for clients that accept it, else Prometheus' text
//! format 0.0.4, which every scraper and `promtool check metrics` read.

/// A form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// Prometheus' text format 0.0.4.
    Text,
}

impl Form {
    /// The form that an `Accept` header asks for.
    pub fn accepted(accept: &str) -> Form {
        if accept.contains("application/openmetrics-text") { Form::OpenMetrics } else { Form::Text }
    }

    /// Its media type.
    pub fn content_type(self) -> &'static str {
        match self {
            Form::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Form::Text => "text/plain; version=0.0.4; charset=utf-8",
        }
    }

    /// Converts OpenMetrics to this form. The text format has no unit and no end, and names a
    /// counter like its samples, with `_total`.
    pub fn of(self, openmetrics: String) -> String {
        if self == Form::OpenMetrics {
            return openmetrics;
        }
        let mut text = String::with_capacity(openmetrics.len());
        let mut help: Option<(&str, &str)> = None;
        for line in openmetrics.lines() {
            if let Some(described) = line.strip_prefix("# HELP ") {
                help = described.split_once(' ');
            } else if let Some((name, kind)) = type_of(line) {
                let total = if kind == "counter" { "_total" } else { "" };
                if let Some((_, said)) = help.take().filter(|(of, _)| *of == name) {
                    text.push_str(&format!("# HELP {name}{total} {said}\n"));
                }
                text.push_str(&format!("# TYPE {name}{total} {kind}\n"));
            } else if !line.starts_with('#') {
                text.push_str(line);
                text.push('\n');
            }
        }
        text
    }
}

fn type_of(line: &str) -> Option<(&str, &str)> {
    line.strip_prefix("# TYPE ")?.split_once(' ')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_form_names_counters_as_their_samples_are_named() {
        let openmetrics = "# HELP g_edges Edges.\n# TYPE g_edges counter\ng_edges_total{a=\"b\"} 1\n\
             # HELP g_sweep_seconds Sweeps.\n# TYPE g_sweep_seconds histogram\n\
             # UNIT g_sweep_seconds seconds\ng_sweep_seconds_count 0\n# EOF\n";
        let expected = "# HELP g_edges_total Edges.\n# TYPE g_edges_total counter\n\
             g_edges_total{a=\"b\"} 1\n\
             # HELP g_sweep_seconds Sweeps.\n# TYPE g_sweep_seconds histogram\n\
             g_sweep_seconds_count 0\n";
        assert_eq!(Form::Text.of(openmetrics.to_owned()), expected);
        assert_eq!(Form::OpenMetrics.of(openmetrics.to_owned()), openmetrics);
    }

    #[test]
    fn openmetrics_is_for_whoever_accepts_it() {
        let prometheus = "application/openmetrics-text;version=1.0.0;q=0.8,text/plain;q=0.5";
        assert_eq!(Form::accepted(prometheus), Form::OpenMetrics);
        assert_eq!(Form::accepted("*/*"), Form::Text);
        assert_eq!(Form::accepted(""), Form::Text);
    }
}
