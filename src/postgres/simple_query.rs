//! The simple query protocol: sends statements and collects what the server answers.

use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::pin;

use futures_core::Stream;
use tokio_postgres::{Client, Error, SimpleQueryMessage, SimpleQueryRow, SimpleQueryStream};

use super::result::ResultSet;
use super::server_error::ServerError;
use super::session::Response;

/// The most rows that are kept, in bytes: enough for the history of a million migrations.
pub(super) const MAX_ROWS_BYTES: usize = 256 << 20;

/// The rows of each statement; `None` if they are too many.
pub(super) async fn query_rows(
    client: &Client,
    sql: &str,
) -> Result<Option<Vec<ResultSet>>, Error> {
    let mut results: Vec<ResultSet> = Vec::new();
    let mut length = 0_usize;
    let mut stream = pin!(client.simple_query_raw(sql).await?);
    while let Some(message) = poll_fn(|cx| stream.as_mut().poll_next(cx)).await {
        match message? {
            SimpleQueryMessage::RowDescription(columns) => {
                let columns = columns.iter().map(|column| column.name().to_owned()).collect();
                results.push(ResultSet { columns, rows: Vec::new() });
            }
            SimpleQueryMessage::Row(row) => {
                let row = values(&row);
                let bytes: usize = row.iter().flatten().map(String::len).sum();
                // Values take more than their text.
                length = length.saturating_add(bytes + size_of_val(row.as_slice()));
                if length > MAX_ROWS_BYTES {
                    return Ok(None);
                }
                if let Some(last) = results.last_mut() {
                    last.rows.push(row);
                }
            }
            _ => {}
        }
    }
    Ok(Some(results))
}

fn values(row: &SimpleQueryRow) -> Vec<Option<String>> {
    (0..row.len()).map(|at| row.try_get(at).ok()?.map(str::to_owned)).collect()
}

pub(super) async fn send_messages(
    client: &Client,
    messages: &[&str],
    one_by_one: bool,
    responses: &RefCell<Vec<Response>>,
) -> Result<(), Error> {
    if one_by_one {
        let mut failed = false;
        for (index, message) in messages.iter().enumerate() {
            let is_last = index + 1 == messages.len();
            if failed && !is_last {
                responses.borrow_mut().push(Response::default());
                continue;
            }
            collect_response(client.simple_query_raw(message).await?, responses).await?;
            failed |= responses.borrow().last().is_some_and(|response| response.error.is_some());
        }
    } else {
        // Each call only sends; the responses are awaited below.
        let mut streams = Vec::with_capacity(messages.len());
        for message in messages {
            streams.push(client.simple_query_raw(message).await?);
        }
        for stream in streams {
            collect_response(stream, responses).await?;
        }
    }
    Ok(())
}

async fn collect_response(
    stream: SimpleQueryStream,
    responses: &RefCell<Vec<Response>>,
) -> Result<(), Error> {
    responses.borrow_mut().push(Response::default());
    let mut stream = pin!(stream);
    while let Some(message) = poll_fn(|cx| stream.as_mut().poll_next(cx)).await {
        let mut responses = responses.borrow_mut();
        let Some(response) = responses.last_mut() else { continue };
        match message {
            Ok(SimpleQueryMessage::CommandComplete(_)) => response.completed += 1,
            Ok(SimpleQueryMessage::Row(row)) => response.row = Some(values(&row)),
            Ok(_) => {}
            Err(error) => match error.as_db_error() {
                Some(error) => response.error = Some(ServerError::from(error)),
                None => return Err(error),
            },
        }
    }
    Ok(())
}
