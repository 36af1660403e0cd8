//! A table of plain text in aligned columns, readable in a log as on a screen.

use std::fmt;

/// On which side a column is filled up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Align {
    /// Words.
    Left,
    /// Numbers.
    Right,
}

/// Rows under a head.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    head: Vec<(&'static str, Align)>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these columns and no rows.
    pub(crate) fn new<const N: usize>(head: [(&'static str, Align); N]) -> Self {
        Self { head: head.to_vec(), rows: Vec::new() }
    }

    /// One more row; cells that are missing stay empty.
    pub(crate) fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.to_vec());
    }

    fn width(&self, column: usize, title: &str) -> usize {
        let cells = self.rows.iter().filter_map(|row| row.get(column));
        cells.map(|it| it.chars().count()).max().unwrap_or_default().max(title.chars().count())
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns: Vec<(Align, usize)> = self
            .head
            .iter()
            .enumerate()
            .map(|(at, (title, align))| (*align, self.width(at, title)))
            .collect();
        let line = |cells: Vec<&str>| {
            let cells: Vec<String> = columns
                .iter()
                .zip(cells)
                .map(|((align, width), text)| match align {
                    Align::Left => format!("{text:<width$}"),
                    Align::Right => format!("{text:>width$}"),
                })
                .collect();
            format!("  {}", cells.join("  ")).trim_end().to_owned()
        };
        f.write_str(&line(self.head.iter().map(|it| it.0).collect()))?;
        let rules: Vec<String> = columns.iter().map(|(_, width)| "-".repeat(*width)).collect();
        write!(f, "\n{}", line(rules.iter().map(String::as_str).collect()))?;
        for row in &self.rows {
            write!(f, "\n{}", line(row.iter().map(String::as_str).collect()))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let mut table = Table::new([("what", Align::Left), ("paid", Align::Right)]);
        table.row(["completion".to_owned(), "0.000123".to_owned()]);
        table.row(["é".to_owned(), "12.5".to_owned()]);
        let expected = "  what            paid\n  \
                        ----------  --------\n  \
                        completion  0.000123\n  \
                        é               12.5";
        assert_eq!(table.to_string(), expected);
    }
}
