"""Built-in handlers: which types are covered, and in which file; loaded when a state first holds one of them.

Types are named as they are stored, "module:qualname", so that no library is imported for the table. Each file has
`HANDLERS`, a dict of `registry.Handler` by that name.
"""

from __future__ import annotations

from typing import Final

_FILES: Final = {
    "files": "_io:TextIOWrapper _io:BufferedReader _io:BufferedWriter _io:BufferedRandom _io:FileIO",
    "compressed": "gzip:GzipFile bz2:BZ2File lzma:LZMAFile",
    "csv_files": "resumable.values.handlers.csv_files:CsvWriter resumable.values.handlers.csv_files:CsvReader",
    "sqlite": "sqlite3:Connection",
    "postgres": "psycopg:Connection psycopg:AsyncConnection psycopg2.extensions:connection",
    "asyncpg_connections": "asyncpg.connection:Connection",
    "alchemy": "sqlalchemy.engine.url:URL sqlalchemy.engine.base:Engine sqlalchemy.ext.asyncio.engine:AsyncEngine",
    "alchemy_sessions": "sqlalchemy.orm.session:Session sqlalchemy.ext.asyncio.session:AsyncSession "
    "sqlalchemy.orm.session:sessionmaker sqlalchemy.ext.asyncio.session:async_sessionmaker "
    "sqlalchemy.orm.scoping:scoped_session",
    "sockets": "socket:socket ssl:SSLSocket",
    "tls": "ssl:SSLContext",
    "smtp": "smtplib:SMTP smtplib:SMTP_SSL smtplib:LMTP",
    "requests_sessions": "requests.sessions:Session",
    "httpx_clients": "httpx:Client httpx:AsyncClient",
    "aiohttp_sessions": "aiohttp.client:ClientSession aiohttp.connector:BaseConnector aiohttp.connector:TCPConnector "
    "aiohttp.connector:UnixConnector",
    "locks": "_thread:lock _thread:RLock threading:_RLock threading:Event threading:Condition threading:Semaphore "
    "threading:BoundedSemaphore threading:Barrier asyncio.locks:Lock asyncio.locks:Event asyncio.locks:Condition "
    "asyncio.locks:Semaphore asyncio.locks:BoundedSemaphore asyncio.locks:Barrier",
    "logs": "logging:Handler logging:NullHandler logging:StreamHandler logging:FileHandler "
    "logging.handlers:WatchedFileHandler logging.handlers:RotatingFileHandler "
    "logging.handlers:TimedRotatingFileHandler logging.handlers:SocketHandler logging.handlers:DatagramHandler "
    "logging.handlers:SysLogHandler logging.handlers:HTTPHandler logging.handlers:SMTPHandler "
    "logging.handlers:MemoryHandler",
    "redis_clients": "redis.client:Redis redis.asyncio.client:Redis redis.connection:ConnectionPool "
    "redis.connection:BlockingConnectionPool redis.asyncio.connection:ConnectionPool "
    "redis.asyncio.connection:BlockingConnectionPool",
    "mongo": "pymongo.synchronous.mongo_client:MongoClient pymongo.synchronous.database:Database "
    "pymongo.synchronous.collection:Collection pymongo.asynchronous.mongo_client:AsyncMongoClient "
    "pymongo.asynchronous.database:AsyncDatabase pymongo.asynchronous.collection:AsyncCollection "
    "pymongo.mongo_client:MongoClient pymongo.database:Database pymongo.collection:Collection",
    "aws": "botocore.client:BaseClient boto3.resources.base:ServiceResource boto3.session:Session",
    "random_states": "random:Random random:SystemRandom",
    "torch_state": "torch:Tensor torch.nn.parameter:Parameter torch.storage:UntypedStorage torch.storage:TypedStorage "
    "torch.optim.optimizer:Optimizer torch._C:Generator",
}

BUILT_IN: Final = {key: file for file, keys in _FILES.items() for key in keys.split()}

# Those that are refused until the user asks for them by `register_reconnector(type)`.
OPT_IN: Final = frozenset({"socket:socket"})
