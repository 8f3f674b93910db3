//! Rows as parameters of a statement: one array per column, which `unnest` turns into rows again.
//!
//! Each column is named once, beside its value; callers never handle parameter numbers. Binary arrays cost the
//! database least: a record per row, or JSON, costs some microseconds more.

use std::fmt::Write;

use tokio_postgres::types::ToSql;

/// The parameters that a statement takes from some rows.
pub(super) struct Columns<'a, R> {
    rows: &'a [R],
    /// In the order of their numbers.
    parameters: Vec<Parameter<'a>>,
}

struct Parameter<'a> {
    name: &'static str,
    kind: &'static str,
    /// One value per row, or one for all rows.
    is_column: bool,
    value: Box<dyn ToSql + Sync + Send + 'a>,
}

impl<'a, R> Columns<'a, R> {
    /// Starts with no columns.
    pub(super) fn of(rows: &'a [R]) -> Self {
        Columns { rows, parameters: Vec::new() }
    }

    /// Adds a column of SQL type `kind`, with the value that each row has there.
    pub(super) fn column<V>(
        mut self,
        name: &'static str,
        kind: &'static str,
        value: impl Fn(&'a R) -> V,
    ) -> Self
    where
        Vec<V>: ToSql + Sync + Send + 'a,
    {
        let values: Vec<V> = self.rows.iter().map(value).collect();
        self.parameters.push(Parameter { name, kind, is_column: true, value: Box::new(values) });
        self
    }

    /// Adds a value that is the same for all rows.
    pub(super) fn value(
        mut self,
        name: &'static str,
        kind: &'static str,
        value: impl ToSql + Sync + Send + 'a,
    ) -> Self {
        self.parameters.push(Parameter { name, kind, is_column: false, value: Box::new(value) });
        self
    }

    /// The statement with the parameters' numbers filled in. `{rows}` becomes the columns and, as `n`, each row's
    /// place from 1 on; `{name}` becomes the value of that name. The same columns give the same text, so it is
    /// prepared once.
    pub(super) fn statement(&self, text: &str) -> String {
        let (mut arrays, mut names, mut statement) =
            (String::new(), String::new(), text.to_owned());
        for (number, Parameter { name, kind, is_column, .. }) in (1..).zip(&self.parameters) {
            if *is_column {
                // Writing into a String cannot fail.
                write!(arrays, "${number}::{kind}[], ").ok();
                write!(names, "{name}, ").ok();
            } else {
                let value = format!("(${number}::{kind})");
                statement = statement.replace(&format!("{{{name}}}"), &value);
            }
        }
        let rows =
            format!("unnest({}) with ordinality as r ({names}n)", arrays.trim_end_matches(", "));
        statement.replace("{rows}", &rows)
    }

    /// The parameters, in the order of their numbers.
    pub(super) fn parameters(&self) -> Vec<&(dyn ToSql + Sync)> {
        self.parameters.iter().map(|it| &*it.value as &(dyn ToSql + Sync)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_column_and_each_value_has_its_number_where_it_is_named() {
        let columns = Columns::of(&[(7_i64, "a"), (8, "b")])
            .column("revision", "bigint", |row| row.0)
            .value("pod", "integer", 3)
            .column("event", "text", |row| row.1);
        assert_eq!(
            columns.statement("select {pod}, revision from {rows} where {pod} > 0"),
            "select ($2::integer), revision from \
             unnest($1::bigint[], $3::text[]) with ordinality as r (revision, event, n) where ($2::integer) > 0"
        );
        let shown: Vec<String> =
            columns.parameters().iter().map(|value| format!("{value:?}")).collect();
        assert_eq!(shown, ["[7, 8]", "3", r#"["a", "b"]"#]);
    }
}
