"""Types that end with the process, by name, each with what to keep in their place.

By name, so that no module is imported for the table. Where it has a base class, every subclass is refused with it,
unless the subclass defines its own pickling. `register_reconnector` overrides an entry.
"""

from __future__ import annotations

from typing import Final

_REASONS: Final = {
    "each thread has its own values in it, and threads end with the process (keep those values, not the local)": (
        "_thread._local _threading_local.local"
    ),
    "it is shared with processes that will be gone (keep what it guards, and make a new one when the job starts)": (
        "multiprocessing.synchronize.SemLock multiprocessing.synchronize.Condition multiprocessing.synchronize.Event "
        "multiprocessing.sharedctypes.SynchronizedBase multiprocessing.shared_memory.SharedMemory "
        "multiprocessing.shared_memory.ShareableList multiprocessing.managers.BaseProxy"
    ),
    "it runs in this process alone (keep the work it has to do, and start it again when the job starts)": (
        "threading.Thread multiprocessing.process.BaseProcess subprocess.Popen asyncio.subprocess.Process "
        "concurrent.futures._base.Executor concurrent.futures._base.Future multiprocessing.pool.Pool "
        "multiprocessing.pool.ApplyResult multiprocessing.pool.IMapIterator multiprocessing.managers.BaseManager "
        "socketserver.BaseServer logging.handlers.QueueListener"
    ),
    "it stands in the middle of running code (keep the index or the remaining items, not the iterator)": (
        "builtins.generator builtins.coroutine builtins.async_generator builtins.frame builtins.traceback "
        "contextlib._GeneratorContextManagerBase posix.ScandirIterator"
    ),
    "it is part of a context of this process (keep the values in it)": (
        "_contextvars.Context _contextvars.ContextVar _contextvars.Token"
    ),
    "it holds certificates and keys (keep the paths that it was made from, and make it when the job starts)": (
        "_ssl._SSLContext"
    ),
    "it belongs to this process's event loop (keep its data, and make a new one when the job starts)": (
        "_asyncio.Future asyncio.futures.Future asyncio.events.AbstractEventLoop asyncio.events.Handle "
        "asyncio.queues.Queue asyncio.streams.StreamReader asyncio.streams.StreamWriter asyncio.taskgroups.TaskGroup "
        "asyncio.runners.Runner asyncio.timeouts.Timeout asyncio.transports.BaseTransport "
        "asyncio.streams.StreamReaderProtocol asyncio.events.AbstractServer selectors.BaseSelector select.epoll select.poll"
    ),
    "it is shared with other threads or processes that will be gone (keep its items in a list or deque)": (
        "queue.Queue _queue.SimpleQueue queue._PySimpleQueue multiprocessing.queues.Queue "
        "multiprocessing.queues.SimpleQueue multiprocessing.connection._ConnectionBase"
    ),
    "an archive is complete only once closed (keep its path and the names done; open, add and close it per item)": (
        "zipfile.ZipFile zipfile.ZipExtFile zipfile.Path zipfile._path.Path tarfile.TarFile tarfile.ExFileObject"
    ),
    "it is read and written in place (keep its path and the keys done, and open it again when the job starts)": (
        "shelve.Shelf dbm.dumb._Database _gdbm.gdbm _dbm.dbm dbm.sqlite3._Database"
    ),
    "it shows a run of this process (keep the count, and make a new one with it when the job starts)": (
        "tqdm.std.tqdm rich.progress.Progress"
    ),
    "it is deleted when it is closed (use a file or directory of your own, and keep its path)": (
        "tempfile._TemporaryFileWrapper tempfile.TemporaryDirectory tempfile.SpooledTemporaryFile"
    ),
    "it does not know its file (keep a resumable.csv_reader or resumable.csv_writer instead)": (
        "_csv.reader _csv.writer csv.DictReader csv.DictWriter"
    ),
    "it decodes by itself, and its position is not exact (keep a file from open() with the same encoding)": (
        "codecs.StreamReaderWriter codecs.StreamReader codecs.StreamWriter codecs.StreamRecoder"
    ),
    "what it refers to may be gone (keep the object itself or its key)": (
        "weakref.ReferenceType weakref weakref.WeakKeyDictionary weakref.WeakValueDictionary weakref.WeakSet "
        "_weakrefset.WeakSet weakref.ProxyType weakref.CallableProxyType weakref.finalize builtins.weakref "
        "builtins.weakproxy builtins.weakcallableproxy"
    ),
    "it is a view of this process's memory (keep the bytes, or the path and the offset)": "mmap.mmap builtins.memoryview",
    "its connection holds a login that is not saved (keep host and account, or use register_reconnector)": (
        "xmlrpc.client.ServerProxy xmlrpc.client.Transport urllib.request.HTTPPasswordMgr "
        "imaplib.IMAP4 poplib.POP3 ftplib.FTP http.client.HTTPConnection telnetlib.Telnet "
        "botocore.session.Session botocore.credentials.Credentials botocore.credentials.ReadOnlyCredentials "
        "httpx._client.BaseClient urllib3.poolmanager.PoolManager urllib3.connectionpool.ConnectionPool "
        "urllib.request.OpenerDirector"
    ),
    "what it has sent or got belongs to one connection (execute it, and keep the client)": (
        "redis.client.Pipeline redis.asyncio.client.Pipeline redis.cluster.ClusterPipeline redis.asyncio.cluster.ClusterPipeline"
    ),
    "messages that come while the job is down are lost (keep the client and the channels, and subscribe when the job starts)": (
        "redis.client.PubSub redis.asyncio.client.PubSub redis.client.Monitor redis.asyncio.client.Monitor"
    ),
    "whoever holds it is known by a token that ends with the process (keep the client and the lock's name)": (
        "redis.lock.Lock redis.asyncio.lock.Lock"
    ),
    "it finds its servers by itself (keep the addresses it starts from and make it when the job starts, or use "
    "register_reconnector)": (
        "redis.sentinel.Sentinel redis.asyncio.sentinel.Sentinel redis.sentinel.SentinelConnectionPool "
        "redis.asyncio.sentinel.SentinelConnectionPool redis.cluster.RedisCluster redis.asyncio.cluster.RedisCluster"
    ),
    "it may hold a login that cannot be seen (keep where it comes from, or use register_reconnector)": (
        "redis.credentials.CredentialProvider redis.connection.AbstractConnection redis.asyncio.connection.AbstractConnection"
    ),
    "the server forgets it (keep the client and the last document's key, and ask again from there)": (
        "pymongo.cursor.Cursor pymongo.command_cursor.CommandCursor pymongo.change_stream.ChangeStream "
        "pymongo.synchronous.cursor.Cursor pymongo.synchronous.command_cursor.CommandCursor "
        "pymongo.synchronous.change_stream.ChangeStream pymongo.asynchronous.cursor.AsyncCursor "
        "pymongo.asynchronous.command_cursor.AsyncCommandCursor pymongo.asynchronous.change_stream.AsyncChangeStream"
    ),
    "it belongs to one connection, with its transaction (commit or abort it, end it, and keep the client)": (
        "pymongo.client_session.ClientSession pymongo.synchronous.client_session.ClientSession "
        "pymongo.asynchronous.client_session.AsyncClientSession"
    ),
    "it stands in the middle of requests (keep the client or resource, and the last key or marker)": (
        "botocore.paginate.Paginator botocore.paginate.PageIterator botocore.waiter.Waiter botocore.eventstream.EventStream "
        "boto3.resources.collection.CollectionManager boto3.resources.collection.ResourceCollection "
        "boto3.dynamodb.table.BatchWriter"
    ),
    "it is read from the network (read it, and keep the bytes)": "botocore.response.StreamingBody",
    "it is complete only once closed (keep the collection's GridFS and the file's id; write or read it as one item)": (
        "gridfs.synchronous.grid_file.GridIn gridfs.asynchronous.grid_file.AsyncGridIn gridfs.grid_file.GridIn "
        "gridfs.synchronous.grid_file.GridOut gridfs.asynchronous.grid_file.AsyncGridOut gridfs.grid_file.GridOut"
    ),
    "it belongs to its client (keep the client, and take it from there)": (
        "botocore.client.ClientMeta botocore.errorfactory.BaseClientExceptions"
    ),
    "it stands in the middle of a query (keep the connection and the rows, or the last key that was read)": (
        "sqlite3.Cursor sqlite3.Blob psycopg.Cursor psycopg.AsyncCursor psycopg.Copy psycopg.AsyncCopy "
        "psycopg2.extensions.cursor asyncpg.connresource.ConnectionResource sqlalchemy.engine.result.Result "
        "sqlalchemy.engine.cursor.CursorResult sqlalchemy.ext.asyncio.result.AsyncResult"
    ),
    "it is part of a transaction or a replication (end it before the checkpoint, and keep the connection)": (
        "psycopg.Transaction psycopg.AsyncTransaction psycopg.Pipeline psycopg.AsyncPipeline psycopg2.extensions.lobject "
        "psycopg2.extensions.ReplicationConnection"
    ),
    "it is checked out of an engine's pool (keep the engine, and connect for each item)": (
        "sqlalchemy.engine.base.Connection sqlalchemy.engine.base.Transaction sqlalchemy.ext.asyncio.engine.AsyncConnection "
        "sqlalchemy.ext.asyncio.engine.AsyncTransaction sqlalchemy.pool.base.Pool sqlalchemy.pool.base.PoolProxiedConnection "
        "sqlalchemy.orm.session.SessionTransaction sqlalchemy.ext.asyncio.scoping.async_scoped_session"
    ),
    "its connections are open in this process alone (keep what it is made from, or give it by Driver(resources=...))": (
        "asyncpg.pool.Pool asyncpg.pool.PoolConnectionProxy psycopg_pool.base.BasePool psycopg2.pool.AbstractConnectionPool"
    ),
}

REFUSED: Final = {name: reason for reason, names in _REASONS.items() for name in names.split()}
