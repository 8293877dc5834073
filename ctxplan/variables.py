"""The environment variables that say where a service is and what opens it, to every program that speaks to one."""

SERVER = "CTXPLAN_SERVER"
API_KEY = "CTXPLAN_API_KEY"
