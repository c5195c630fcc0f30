"""The state database: tables, the one way in (`store`, `writer`), questions about ended jobs (`queries`), views for analysts.

SQLite for a first cluster, MySQL or MariaDB for a site. Only hq-server and hq-dbadmin import this room.
"""
