//! One request at a time, for whoever has nothing else to do meanwhile. Events are passed over.

#![forbid(unsafe_code)]

use std::future::{Future, poll_fn};
use std::task::{Poll, ready};

use super::tree::{
    CreateMode, MetadataTree, Operation, Outcome, Reply, Request, RequestError, Stat, TreeError, TreeOutput, Version,
    Watch,
};

async fn ask(tree: &impl MetadataTree, request: Request) -> Result<Reply, RequestError> {
    tree.submit(0, None, request);
    poll_fn(|cx| {
        loop {
            if let TreeOutput::Reply { result, .. } = ready!(tree.poll_output(cx)) {
                return Poll::Ready(result);
            }
        }
    })
    .await
}

async fn ask_one(tree: &impl MetadataTree, request: Request) -> Result<Reply, TreeError> {
    ask(tree, request).await.map_err(|failed| failed.error)
}

pub trait Ask: MetadataTree + Sized {
    fn create(
        &self,
        path: &str,
        data: &[u8],
        mode: CreateMode,
    ) -> impl Future<Output = Result<(String, Stat), TreeError>> {
        async move {
            match ask_one(self, Request::Create { path: path.into(), data: data.into(), mode }).await? {
                Reply::Created(path, stat) => Ok((path, stat)),
                other => unreachable!("a create answered {other:?}"),
            }
        }
    }

    fn get(&self, path: &str, watch: Watch) -> impl Future<Output = Result<(Vec<u8>, Stat), TreeError>> {
        async move {
            match ask_one(self, Request::Get { path: path.into(), watch }).await? {
                Reply::Data(data, stat) => Ok((data, stat)),
                other => unreachable!("a get answered {other:?}"),
            }
        }
    }

    fn exists(&self, path: &str, watch: Watch) -> impl Future<Output = Result<Option<Stat>, TreeError>> {
        async move {
            match ask_one(self, Request::Exists { path: path.into(), watch }).await? {
                Reply::Exists(stat) => Ok(stat),
                other => unreachable!("an exists answered {other:?}"),
            }
        }
    }

    fn set(&self, path: &str, data: &[u8], version: Version) -> impl Future<Output = Result<Stat, TreeError>> {
        async move {
            match ask_one(self, Request::Set { path: path.into(), data: data.into(), version }).await? {
                Reply::Set(stat) => Ok(stat),
                other => unreachable!("a set answered {other:?}"),
            }
        }
    }

    fn children(&self, path: &str, watch: Watch) -> impl Future<Output = Result<Vec<String>, TreeError>> {
        async move {
            match ask_one(self, Request::Children { path: path.into(), watch }).await? {
                Reply::Children(names) => Ok(names),
                other => unreachable!("a children answered {other:?}"),
            }
        }
    }

    fn multi(&self, operations: Vec<Operation>) -> impl Future<Output = Result<Vec<Outcome>, RequestError>> {
        async move {
            match ask(self, Request::Multi(operations)).await? {
                Reply::Multi(outcomes) => Ok(outcomes),
                other => unreachable!("a multi answered {other:?}"),
            }
        }
    }
}

impl<T: MetadataTree> Ask for T {}
