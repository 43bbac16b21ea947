//! Tables in documents that programs read: between `<!-- NAME:begin -->` and `<!-- NAME:end -->`.

/// A row with the line it stands on (from 1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    pub line: usize,
    pub cells: Vec<String>,
}

/// The rows of the named table, without its head. Backticks around a cell's words are taken off. An error says what is missing.
pub fn named(text: &str, name: &str) -> Result<Vec<Row>, String> {
    let (begin, end) = (format!("<!-- {name}:begin -->"), format!("<!-- {name}:end -->"));
    let mut rows = Vec::new();
    let mut inside = false;
    let mut ended = false;
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line == begin {
            inside = true;
        } else if line == end {
            ended = inside;
            break;
        } else if inside && line.starts_with('|') {
            rows.push(Row { line: index + 1, cells: cells(line) });
        }
    }
    if !ended {
        return Err(format!("there is no table between `{begin}` and `{end}`"));
    }
    // The head, and the line below it.
    if rows.len() < 3 {
        return Err(format!("the table `{name}` has no rows"));
    }
    Ok(rows.split_off(2))
}

fn cells(line: &str) -> Vec<String> {
    line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()
}

/// The words of a cell that lists things: `` `a`, `b` ``. A dash is an empty list.
pub fn list(cell: &str) -> Vec<String> {
    cell.split(',')
        .map(|word| word.trim().trim_matches('`').to_owned())
        .filter(|word| !word.is_empty() && word != "–" && word != "-")
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_between_the_marks_are_read() {
        let text = "x\n| not | this |\n<!-- edges:begin -->\n\n| a | b |\n|---|---|\n| `one` | `two`, three |\n| four | – |\n<!-- edges:end -->\n| nor | this |\n";
        let rows = named(text, "edges").unwrap();
        assert_eq!(rows.len(), 2);
        assert_eq!((rows[0].line, list(&rows[0].cells[1])), (7, vec!["two".to_owned(), "three".to_owned()]));
        assert!(list(&rows[1].cells[1]).is_empty());
    }

    #[test]
    fn a_table_that_is_missing_unended_or_empty_is_an_error() {
        assert!(named("", "edges").is_err());
        assert!(named("<!-- edges:begin -->\n| a |\n|---|\n| b |\n", "edges").is_err());
        assert!(named("<!-- edges:begin -->\n| a |\n|---|\n<!-- edges:end -->\n", "edges").is_err());
    }
}
