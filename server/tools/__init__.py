"""Tools that models may call: Python functions, LangChain tools, MCP servers, searches; each run within its limits."""
