import * as z from "zod/mini";
import { defineTask } from "../../lib/index.ts";
