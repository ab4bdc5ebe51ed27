//! Results of analyses as Parquet files, one a table.

use std::fs;
use std::path::{Path, PathBuf};

use polars_core::prelude::{Column, DataFrame, PlSmallStr, PolarsError};

use super::polars;
use super::store::{StoreError, failed};
use crate::analyze::{Cell, Run, Table};

/// Writes every table of a run to `DIR/ANALYSIS.TABLE.parquet`; returns the files.
///
/// # Errors
///
/// If a file can't be written.
pub fn write(run: &Run, dir: &Path) -> Result<Vec<PathBuf>, StoreError> {
    fs::create_dir_all(dir).map_err(failed(dir))?;
    let mut files = Vec::new();
    for (about, table) in run.tables() {
        let path = dir.join(format!("{}.{}.parquet", about.name, table.name));
        let frame = data_frame(table).map_err(std::io::Error::other);
        frame.and_then(|mut frame| polars::write_frame(&mut frame, &path)).map_err(failed(&path))?;
        files.push(path);
    }
    Ok(files)
}

fn data_frame(table: &Table) -> Result<DataFrame, PolarsError> {
    let mut columns = Vec::new();
    for (place, about) in table.columns.iter().enumerate() {
        // Two columns of one name can't be: the second is told apart by its place.
        let taken = table.columns[..place].iter().any(|c| c.key == about.key);
        let name = if taken { format!("{}_{place}", about.key) } else { about.key.clone() };
        columns.push(column(&name, table.rows.iter().map(|row| &row.cells[place]).collect()));
    }
    if table.rows.iter().any(|row| row.note.is_some()) {
        let notes: Vec<Option<&str>> = table.rows.iter().map(|row| row.note.as_deref()).collect();
        columns.push(Column::new(PlSmallStr::from_static("note"), notes));
    }
    DataFrame::new(table.rows.len(), columns)
}

/// A column of the narrowest type that holds all of its cells.
fn column(name: &str, cells: Vec<&Cell>) -> Column {
    let name = PlSmallStr::from_str(name);
    let all = |fits: fn(&Cell) -> bool| cells.iter().all(|cell| **cell == Cell::None || fits(cell));
    if all(|c| matches!(c, Cell::Int(_))) {
        let values: Vec<Option<i64>> =
            cells.iter().map(|c| if let Cell::Int(v) = c { Some(*v) } else { None }).collect();
        return Column::new(name, values);
    }
    if all(|c| c.number().is_some()) {
        return Column::new(name, cells.iter().map(|c| c.number()).collect::<Vec<Option<f64>>>());
    }
    if all(|c| matches!(c, Cell::Flag(_))) {
        let values: Vec<Option<bool>> =
            cells.iter().map(|c| if let Cell::Flag(v) = c { Some(*v) } else { None }).collect();
        return Column::new(name, values);
    }
    let texts: Vec<Option<String>> =
        cells.iter().map(|c| (**c != Cell::None).then(|| c.plain().into_owned())).collect();
    Column::new(name, texts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analyze::Unit;

    #[test]
    fn columns_have_the_types_of_their_cells() {
        let mut table = Table::new("t", "")
            .column("Node", Unit::None, "")
            .column("Count", Unit::None, "")
            .column("Avg", Unit::Us, "")
            .column("Avg", Unit::Us, "")
            .column("Runs", Unit::None, "");
        table.row(["a".into(), 1u32.into(), 2u32.into(), 2.5.into(), true.into()]);
        table.row(["b".into(), Cell::None, 2.5.into()]).note("why");
        let path = std::env::temp_dir().join(format!("tthoma-results-{}.parquet", std::process::id()));
        polars::write_frame(&mut data_frame(&table).unwrap(), &path).unwrap();
        let read = polars::read(&path);
        fs::remove_file(&path).unwrap();
        assert_eq!(
            read.get_column_names().iter().map(|n| n.as_str()).collect::<Vec<_>>(),
            ["node", "count", "avg_us", "avg_us_3", "runs", "note"]
        );
        let text = |name: &str| read.column(name).unwrap().str().unwrap().iter().collect::<Vec<_>>();
        let number = |name: &str| read.column(name).unwrap().f64().unwrap().iter().collect::<Vec<_>>();
        assert_eq!(text("node"), [Some("a"), Some("b")]);
        assert_eq!(read.column("count").unwrap().i64().unwrap().iter().collect::<Vec<_>>(), [Some(1), None]);
        assert_eq!(number("avg_us"), [Some(2.0), Some(2.5)]);
        assert_eq!(number("avg_us_3"), [Some(2.5), None]);
        assert_eq!(read.column("runs").unwrap().bool().unwrap().iter().collect::<Vec<_>>(), [Some(true), None]);
        assert_eq!(text("note"), [None, Some("why")]);
    }
}
