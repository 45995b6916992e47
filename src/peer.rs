//! The thin driver for shards and other tasks of a [`Platform`]: one connection, one request under way.
//!
//! Time is the caller's: each call has a deadline, by the platform's clock. After any error the connection is of no use, and
//! what was asked may have been done.

#![forbid(unsafe_code)]

use std::future::Future;
use std::io;
use std::ops::RangeInclusive;

use crate::base::time::Monotonic;
use crate::client::{Answer, Exchange, ExchangeError, Request};
use crate::executor::either;
use crate::platform::{Clock, Platform, Socket};

/// Why a connection is of no use any more.
#[derive(Debug, thiserror::Error)]
pub enum ConnectionError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("no answer in time")]
    TimedOut,
    #[error("{0}")]
    Exchange(#[from] ExchangeError),
}

/// See the head of this file.
pub struct Connection<P: Platform> {
    platform: P,
    socket: P::Socket,
    exchange: Exchange,
}

impl<P: Platform> Connection<P> {
    /// Opens a connection by `connect`, which is [`Platform::connect`] of some address, and learns what the broker
    /// understands.
    ///
    /// # Errors
    /// Nobody answers, or not by `deadline`, or it is no broker.
    pub async fn open(
        platform: &P,
        connect: impl Future<Output = io::Result<P::Socket>>,
        exchange: Exchange,
        deadline: Monotonic,
    ) -> Result<Connection<P>, ConnectionError> {
        let socket = in_time(platform, connect, deadline).await??;
        let mut connection = Connection { platform: platform.clone(), socket, exchange };
        let frame = connection.exchange.ask_versions()?;
        let answer = connection.answer_to(frame.freeze(), deadline).await?;
        if connection.exchange.learn_versions(&answer).is_err() {
            let frame = connection.exchange.ask_versions_of_old()?;
            let answer = connection.answer_to(frame.freeze(), deadline).await?;
            connection.exchange.learn_versions(&answer)?;
        }
        Ok(connection)
    }

    /// Asks in the highest version that both sides have and `able` contains, and waits for the answer.
    ///
    /// # Errors
    /// The connection has ended, the answer can't be read, or does not come by `deadline`.
    pub async fn ask<R: Request>(
        &mut self,
        request: &R,
        able: RangeInclusive<i16>,
        deadline: Monotonic,
    ) -> Result<R::Response, ConnectionError> {
        let (frame, _) = self.exchange.ask(request, able)?;
        let answer = self.answer_to(frame.freeze(), deadline).await?;
        Ok(answer.read::<R::Response>()?)
    }

    async fn answer_to(&mut self, frame: bytes::Bytes, deadline: Monotonic) -> Result<Answer, ConnectionError> {
        let Connection { platform, socket, exchange } = self;
        let answer = async {
            socket.send(frame, false).await?;
            loop {
                if let Some(answer) = exchange.next_answer()? {
                    return Ok(answer);
                }
                let chunk = socket.receive().await?;
                if chunk.is_empty() {
                    return Err(ConnectionError::Io(io::ErrorKind::UnexpectedEof.into()));
                }
                exchange.received(&chunk);
            }
        };
        in_time(platform, answer, deadline).await?
    }
}

async fn in_time<P: Platform, T>(
    platform: &P,
    what: impl Future<Output = T>,
    deadline: Monotonic,
) -> Result<T, ConnectionError> {
    let over = platform.clock().sleep_until(deadline);
    either(what, over).await.map_err(|()| ConnectionError::TimedOut)
}
