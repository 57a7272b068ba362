//! The simple query protocol: sends statements and collects what the server answers.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::pin::pin;

use futures_core::Stream;
use tokio::sync::mpsc;
use tokio_postgres::{
    CancelToken, Client, Error, SimpleQueryMessage, SimpleQueryRow, SimpleQueryStream,
};

use super::relay::{Awaited, CopyData, ResponseHandling};
use super::result::ResultSet;
use super::server_error::ServerError;
use super::session::{Message, Response};

/// The most rows that are kept, in bytes: enough for the history of a million migrations.
pub(super) const MAX_ROWS_BYTES: usize = 256 << 20;

/// How much of a COPY's data is on its way at once.
const COPY_PART: usize = 64 << 10;

/// Sends messages, and tells the relay below the driver what to do with their replies.
pub(super) struct Sender {
    client: Client,
    awaited: Awaited,
}

impl Sender {
    pub(super) fn new(client: Client, awaited: Awaited) -> Sender {
        Sender { client, awaited }
    }

    pub(super) fn cancel_token(&self) -> CancelToken {
        self.client.cancel_token()
    }

    async fn send(
        &self,
        sql: &str,
        expected: ResponseHandling,
    ) -> Result<SimpleQueryStream, Error> {
        self.awaited.push(expected);
        self.client.simple_query_raw(sql).await
    }

    /// The rows of each statement; `None` if they are too many.
    pub(super) async fn query_rows(&self, sql: &str) -> Result<Option<Vec<ResultSet>>, Error> {
        let mut results: Vec<ResultSet> = Vec::new();
        let mut length = 0_usize;
        let mut stream = pin!(self.send(sql, ResponseHandling::default()).await?);
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

    pub(super) async fn send_messages(
        &self,
        messages: &[Message<'_>],
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
                self.exchange(message, responses).await?;
                failed |=
                    responses.borrow().last().is_some_and(|response| response.error.is_some());
            }
        } else {
            // Each call only sends; the responses are awaited below.
            let mut streams = Vec::with_capacity(messages.len());
            for Message { sql, discards_rows, .. } in messages {
                let expected = ResponseHandling { data: None, discards_rows: *discards_rows };
                streams.push(self.send(sql, expected).await?);
            }
            for stream in streams {
                collect_response(stream, responses).await?;
            }
        }
        Ok(())
    }

    /// Sends a message and its data, and waits for the response.
    async fn exchange(
        &self,
        message: &Message<'_>,
        responses: &RefCell<Vec<Response>>,
    ) -> Result<(), Error> {
        let Message { sql, data, discards_rows } = *message;
        let (sender, receiver) = mpsc::channel(1);
        let receiver = data.is_some().then_some(receiver);
        let stream = self.send(sql, ResponseHandling { data: receiver, discards_rows }).await?;
        let mut sent = pin!(send_data(data.unwrap_or_default(), sender));
        let mut response = pin!(collect_response(stream, responses));
        let mut is_sent = false;
        poll_fn(|cx| {
            is_sent = is_sent || sent.as_mut().poll(cx).is_ready();
            response.as_mut().poll(cx)
        })
        .await
    }
}

/// Sends the data until it ends, or the server wants no more.
async fn send_data(data: &str, sender: mpsc::Sender<CopyData>) {
    for part in data.as_bytes().chunks(COPY_PART) {
        if sender.send(CopyData::Part(part.to_vec())).await.is_err() {
            return;
        }
    }
    let _ = sender.send(CopyData::End).await;
}

fn values(row: &SimpleQueryRow) -> Vec<Option<String>> {
    (0..row.len()).map(|at| row.try_get(at).ok()?.map(str::to_owned)).collect()
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
